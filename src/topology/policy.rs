//! The policy of a firewall guest, as part of the checked model.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::model::{AddressRange, Service};

/// A firewall guest's policy, references resolved to its interfaces.
#[derive(Debug, Clone, PartialEq)]
pub struct Firewall {
    /// Flavour, such as `linux`.
    pub flavour: String,
    /// Zones by name, each with the kernel names of its interfaces (`eth1.10`).
    pub zones: BTreeMap<String, Vec<String>>,
    /// Zones whose outgoing traffic is masqueraded.
    pub masquerade: Vec<String>,
    /// DHCP ranges served, by zone; a zone with a range has exactly one interface with a static IPv4 address.
    pub dhcp: BTreeMap<String, AddressRange>,
    /// Rules in order; what none accepts is dropped.
    pub rules: Vec<Rule>,
}

/// One firewall rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Source zones; `self` is the firewall.
    pub from: Vec<ZoneRef>,
    /// Destination zones; `self` is the firewall.
    pub to: Vec<ZoneRef>,
    /// Services; empty means all traffic.
    pub services: Vec<Service>,
    /// What happens.
    pub action: RuleAction,
    /// Port forward: traffic from `from` to the firewall's own address and the service's port goes to this target.
    pub forward: Vec<ForwardTarget>,
}

/// A zone, the firewall itself or anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneRef {
    /// A zone by name.
    Zone(String),
    /// The firewall itself (`self`).
    Itself,
    /// Every zone (`any`).
    Any,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Let through.
    Accept,
    /// Discard silently.
    Drop,
    /// Discard and tell the sender.
    Reject,
}

/// Where a port forward leads; one for each family that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardTarget {
    /// Address of the guest behind the firewall.
    pub address: IpAddr,
    /// Port there.
    pub port: u16,
}
