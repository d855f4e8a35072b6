//! The primitives that modes are made of, and the usual combinations of them.

use serde::{Deserialize, Serialize};

/// How traffic leaves a network towards the networks beyond its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Egress {
    /// It does not.
    None,
    /// Routed with the guests' own addresses.
    Routed,
    /// Routed behind the gateway's address.
    Masquerade,
}

/// How a network meets a link of the host on layer 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uplink {
    /// It does not.
    None,
    /// The link becomes a port of the network's bridge.
    Port,
    /// There is no bridge: each NIC is a macvlan on the link. The kernel never passes frames between a macvlan and the
    /// link's own stack, so that host and guests cannot hear each other.
    Macvlan(MacvlanMode),
}

/// What a macvlan does with frames for another one on the same link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacvlanMode {
    /// It delivers them.
    Bridge,
    /// It sends them out; only a switch that hairpins (IEEE 802.1Qbg) brings them back.
    Vepa,
    /// It drops them, even those that a switch brings back.
    Private,
}

/// Who routes for a network's guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gateway {
    /// The host, with an address of its own on the network (or nobody, where it has none).
    Host,
    /// A router of the network's own, in a network namespace behind the host: the host is beyond it, as it is for a NAT
    /// engine that runs as a process.
    Engine,
    /// A router of the network's own with a leg on an uplink: an address of the LAN, and no way to the host.
    Router,
}

/// The primitives every mode is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Wiring {
    /// Whether the host holds an address on the network and may talk to its guests.
    pub host_leg: bool,
    /// How the network meets a link of the host.
    pub uplink: Uplink,
    /// Whether the host, although its uplink is a port of the bridge, is kept from the guests' ports (and they from it).
    pub barred: bool,
    /// Whether new connections from the uplink, a port of the bridge, are kept from the guests.
    pub guarded: bool,
    /// Whether guests are kept from each other: their ports are isolated, and nothing is routed back into the network.
    pub isolated: bool,
    /// Whether it is one node's part of a network that spans nodes through tunnels.
    pub overlay: bool,
    /// Who routes.
    pub gateway: Gateway,
    /// How traffic leaves.
    pub egress: Egress,
    /// Whether new connections from beyond the gateway may come in.
    pub ingress: bool,
    /// Whether the file may have port forwards into the network.
    pub forwards: bool,
    /// Whether the gateway's address leads to what listens on the host's loopback.
    pub loopback: bool,
    /// Whether the network brings a DHCP server (and router advertisements where it has an IPv6 subnet).
    pub dhcp: bool,
    /// Whether the network brings a DNS resolver.
    pub dns: bool,
}

impl Wiring {
    /// Whether an IPv4 or IPv6 subnet is the network's own, with a gateway in it.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        self.host_leg || self.gateway != Gateway::Host
    }
}

/// Guests alone among themselves.
pub const INTERNAL: Wiring = Wiring {
    host_leg: false,
    uplink: Uplink::None,
    barred: false,
    guarded: false,
    isolated: false,
    overlay: false,
    gateway: Gateway::Host,
    egress: Egress::None,
    ingress: false,
    forwards: false,
    loopback: false,
    dhcp: false,
    dns: false,
};
/// As [`INTERNAL`], on several nodes.
pub const OVERLAY: Wiring = Wiring { overlay: true, ..INTERNAL };
/// Guests and host.
pub const HOST_ONLY: Wiring = Wiring { host_leg: true, dhcp: true, dns: true, ..INTERNAL };
/// Guests reach everything behind the host's address.
pub const NAT: Wiring = Wiring { egress: Egress::Masquerade, forwards: true, ..HOST_ONLY };
/// Guests reach everything, and are reached, with their own addresses.
pub const ROUTED: Wiring = Wiring { egress: Egress::Routed, ingress: true, ..HOST_ONLY };
/// Guests are stations of the uplink's own network, and so is the host.
pub const BRIDGED: Wiring = Wiring { uplink: Uplink::Port, ..INTERNAL };
/// As [`BRIDGED`], with the host kept apart.
pub const PORT_GROUP: Wiring = Wiring { barred: true, ..BRIDGED };
/// As [`PORT_GROUP`], by the kernel's macvlan.
pub const MACVLAN: Wiring = Wiring { uplink: Uplink::Macvlan(MacvlanMode::Bridge), ..INTERNAL };
/// Guests reach everything through a NAT engine of the network's own; the host is beyond it.
pub const ENGINE: Wiring = Wiring { host_leg: false, gateway: Gateway::Engine, ..NAT };
/// Guests reach everything through a router with an address on the uplink's network.
pub const ROUTER: Wiring = Wiring { gateway: Gateway::Router, ..ENGINE };
