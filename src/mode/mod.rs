//! Networking modes: each is one entry of data, which expands to one plain [`Wiring`]. The generic ones are in
//! `generic.rs`; those that stand for a construct of another system are in one file for each system, with the contract
//! that `netloom compare` measures.

pub mod barrier;
pub mod contract;
mod esxi;
pub mod example;
mod generic;
mod harvester;
mod hyperv;
mod incus;
mod libvirt;
mod openstack;
mod proxmox;
pub mod reference;
pub mod router;
pub mod ruleset;
mod vagrant;
mod virtualbox;
mod vmware;
pub mod wiring;
mod words;
mod xcpng;

pub use contract::{Contract, Dhcp, Direction, Promise, State};
pub use wiring::{Egress, Gateway, MacvlanMode, Uplink, Wiring};

/// What a file need not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Defaults {
    /// Subnet of a network that names none.
    pub subnet: Option<&'static str>,
    /// The gateway's position in an IPv4 subnet: 2 is .2 of a /24. 1 is the first address.
    pub gateway: u32,
    /// The resolver's position in an IPv4 subnet, where it has an address besides the gateway's.
    pub dns: Option<u32>,
    /// First and last position of the DHCP range in a subnet of at least a /24.
    pub range: Option<(u32, u32)>,
    /// MTU in bytes.
    pub mtu: u32,
}

/// Nothing special.
pub const DEFAULTS: Defaults = Defaults { subnet: None, gateway: 1, dns: None, range: None, mtu: 1500 };

/// Keys of a mode's example besides those that the mode itself asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// The network's, one a line; empty for none.
    pub keys: &'static str,
    /// Those of each guest's NIC, as between the braces of a mapping; empty for none.
    pub nic: &'static str,
}

/// What an entry says differs from this.
const MODE: Mode = Mode {
    id: "",
    alias: "",
    promise: "",
    wiring: wiring::INTERNAL,
    defaults: DEFAULTS,
    contract: None,
    linux: "",
    shown: Shown { keys: "", nic: "" },
};

/// A networking mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Mode {
    /// How files name it: `nat`, `vmware/nat`.
    pub id: &'static str,
    /// How its system's users call it besides; empty when there is no other name.
    pub alias: &'static str,
    /// One line for people: what it promises.
    pub promise: &'static str,
    /// What it is made of, before the file's own choices.
    pub wiring: Wiring,
    /// What the file need not say.
    pub defaults: Defaults,
    /// What its system promises; `None` for generic modes.
    pub contract: Option<Contract>,
    /// Where the Linux host's version of it differs from the real one; empty when there is nothing to say.
    pub linux: &'static str,
    /// What its example has so that it shows what the mode is for.
    pub shown: Shown,
}

/// Every mode, by system.
const SYSTEMS: &[&[Mode]] = &[
    generic::MODES,
    virtualbox::MODES,
    vmware::MODES,
    libvirt::MODES,
    hyperv::MODES,
    esxi::MODES,
    proxmox::MODES,
    incus::MODES,
    xcpng::MODES,
    openstack::MODES,
    harvester::MODES,
    vagrant::MODES,
];

/// Every mode: the generic ones first, then the constructs by system.
pub fn all() -> impl Iterator<Item = &'static Mode> + Clone {
    SYSTEMS.iter().copied().flatten()
}

/// The mode with this id.
#[must_use]
pub fn by_id(id: &str) -> Option<&'static Mode> {
    all().find(|mode| mode.id == id)
}

#[cfg(test)]
mod tests;
