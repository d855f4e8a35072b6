//! Networking modes: each expands to one plain [`Wiring`]. A mode is one file here and one line in [`ALL`].

mod bridged;
mod host_only;
mod internal;
mod nat;
mod routed;
pub mod ruleset;

/// How traffic leaves a network towards the host's other networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// It does not.
    None,
    /// Routed with the guests' own addresses.
    Routed,
    /// Routed behind the host's address.
    Masquerade,
}

/// The primitives every mode is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Whether the host holds an address on the network and may talk to its guests.
    pub host_leg: bool,
    /// Whether a physical or other link of the host becomes a port (layer 2).
    pub uplink: bool,
    /// How traffic leaves.
    pub egress: Egress,
    /// Whether new connections from the host's other networks may come in.
    pub ingress: bool,
    /// Whether the network brings a DHCP server (and router advertisements where it has an IPv6 subnet).
    pub dhcp: bool,
    /// Whether the network brings a DNS resolver.
    pub dns: bool,
}

/// A networking mode.
pub trait Mode: Sync {
    /// How files name it.
    fn id(&self) -> &'static str;
    /// One line for people: what it promises.
    fn promise(&self) -> &'static str;
    /// What it is made of, before the file's own choices.
    fn wiring(&self) -> Wiring;
}

/// Every mode.
pub const ALL: &[&dyn Mode] =
    &[&nat::Nat, &routed::Routed, &host_only::HostOnly, &internal::Internal, &bridged::Bridged];

/// The mode with this id.
#[must_use]
pub fn by_id(id: &str) -> Option<&'static dyn Mode> {
    ALL.iter().copied().find(|mode| mode.id() == id)
}
