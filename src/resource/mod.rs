//! The small closed set of things a lab is made of. Desired resources come from the topology ([`desired`]); the same
//! types describe what was found on the host, so that a plan is a comparison of two values.

pub mod desired;
mod links;
pub mod mark;
pub mod names;
mod ports;

pub use links::{Macvlan, Vlan, VlanProtocol, Vxlan};
pub use ports::HostPort;

use std::collections::BTreeMap;
use std::fmt;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::guest::config::GuestConfig;
pub use crate::mode::MacvlanMode;
use crate::topology::{Attach, Mac, Route};

/// Kinds of resource, in the order in which a lab is built; it is removed in the opposite order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One of the lab's nftables tables on the host, or a guest's own.
    Ruleset,
    /// Kernel settings of a place.
    Sysctls,
    /// A guest's network namespace.
    Namespace,
    /// A network's bridge.
    Bridge,
    /// A link of the host that became a port of a bridge.
    Uplink,
    /// A tap for a VM's NIC.
    Tap,
    /// A pair of virtual Ethernet ends.
    Veth,
    /// A VLAN interface: the host's tagged leg, a guest's, or a tagged uplink.
    Vlan,
    /// A second interface on a link of the host.
    Macvlan,
    /// A bridge's port that leads through a tunnel.
    Vxlan,
    /// Static routes of a place.
    Routes,
    /// A supervised process.
    Service,
    /// A libvirt domain with its files.
    Domain,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 13] = [
        Kind::Ruleset,
        Kind::Sysctls,
        Kind::Namespace,
        Kind::Bridge,
        Kind::Uplink,
        Kind::Tap,
        Kind::Veth,
        Kind::Vlan,
        Kind::Macvlan,
        Kind::Vxlan,
        Kind::Routes,
        Kind::Service,
        Kind::Domain,
    ];

    /// The word users see and marks carry.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Ruleset => "ruleset",
            Kind::Sysctls => "sysctls",
            Kind::Namespace => "namespace",
            Kind::Bridge => "bridge",
            Kind::Uplink => "uplink",
            Kind::Tap => "tap",
            Kind::Veth => "veth",
            Kind::Vlan => "vlan",
            Kind::Macvlan => "macvlan",
            Kind::Vxlan => "vxlan",
            Kind::Routes => "routes",
            Kind::Service => "service",
            Kind::Domain => "domain",
        }
    }
}

/// What a resource is called within its lab: `bridge core`, `veth pc/eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Id {
    /// Kind.
    pub kind: Kind,
    /// Readable name, unique within the kind: `core`, `pc/eth0`, `fw/eth1.10`.
    pub name: String,
}

impl Id {
    /// `kind name`.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

/// Whose network stack something lives in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The host as the lab sees it: the real host's, or a sandbox's namespace.
    Host,
    /// A named network namespace (the file's name under the run directory's `netns`).
    Netns(String),
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// See [`Ruleset`].
    Ruleset(Ruleset),
    /// See [`Sysctls`].
    Sysctls(Sysctls),
    /// A named network namespace; the string is its file name.
    Namespace(String),
    /// See [`Bridge`].
    Bridge(Bridge),
    /// See [`Uplink`].
    Uplink(Uplink),
    /// See [`Tap`].
    Tap(Tap),
    /// See [`Veth`].
    Veth(Veth),
    /// See [`Vlan`].
    Vlan(Vlan),
    /// See [`Macvlan`].
    Macvlan(Macvlan),
    /// See [`Vxlan`].
    Vxlan(Vxlan),
    /// See [`Routes`].
    Routes(Routes),
    /// See [`Service`].
    Service(Service),
    /// See [`Domain`].
    Domain(Box<Domain>),
}

impl Resource {
    /// Where it is to be seen; a pair of links in two places.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        match self {
            Resource::Namespace(name) => vec![Place::Netns(name.clone())],
            Resource::Veth(veth) => veth.ends.iter().map(|end| end.place.clone()).collect(),
            Resource::Ruleset(Ruleset { place, .. })
            | Resource::Sysctls(Sysctls { place, .. })
            | Resource::Vlan(Vlan { place, .. })
            | Resource::Macvlan(Macvlan { place, .. })
            | Resource::Routes(Routes { place, .. })
            | Resource::Service(Service { place, .. }) => vec![place.clone()],
            Resource::Bridge(_)
            | Resource::Uplink(_)
            | Resource::Tap(_)
            | Resource::Vxlan(_)
            | Resource::Domain(_) => vec![Place::Host],
        }
    }

    /// Kernel names of the links of the host that look different when it is made or changed: its own, and bridges that they
    /// are ports of. `None` where that may be others as well: an uplink hands over addresses, a setting may be about any link.
    #[must_use]
    pub fn host_links(&self) -> Option<Vec<&str>> {
        match self {
            Resource::Bridge(bridge) => Some(vec![&bridge.link]),
            Resource::Tap(tap) => Some(vec![&tap.link, &tap.port.bridge]),
            Resource::Veth(veth) => {
                let here = veth.ends.iter().filter(|end| end.place == Place::Host);
                let bridges = here.clone().filter_map(|end| end.port.as_ref()).map(|port| &*port.bridge);
                Some(here.map(|end| &*end.link).chain(bridges).collect())
            }
            Resource::Namespace(_)
            | Resource::Ruleset(_)
            | Resource::Service(_)
            | Resource::Vlan(Vlan { place: Place::Netns(_), .. }) => Some(Vec::new()),
            Resource::Sysctls(Sysctls { place, .. }) | Resource::Routes(Routes { place, .. }) => {
                (*place != Place::Host).then(Vec::new)
            }
            Resource::Uplink(_)
            | Resource::Vlan(_)
            | Resource::Macvlan(_)
            | Resource::Vxlan(_)
            | Resource::Domain(_) => None,
        }
    }
}

/// A resource a lab wants, and what must exist before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Name within the lab.
    pub id: Id,
    /// What it is.
    pub resource: Resource,
    /// What it needs.
    pub needs: Vec<Id>,
}

/// A bridge on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Bridge {
    /// Kernel name.
    pub link: String,
    /// Fixed, so that it does not change with the ports.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
    /// Whether it keeps VLANs apart. Its default PVID is then 0: a port that is not yet configured passes nothing.
    pub vlan_filtering: bool,
    /// Spanning tree.
    pub stp: bool,
    /// The host's addresses on it.
    pub addresses: Vec<IpNetwork>,
    /// Whether the host itself takes part (an IPv6 link-local address at least).
    pub host_leg: bool,
    /// Whether it took its uplink's addresses over: then they are none of ours.
    pub uplinked: bool,
    /// VIDs that the host's tagged legs need on the bridge itself. Sorted.
    pub own_vids: Vec<u16>,
    /// VID of the host's own untagged frames, on a bridge that filters: its uplink's native VLAN, where its addresses
    /// came from there.
    pub own_native: Option<u16>,
}

/// A link's place on a bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Kernel name of the bridge.
    pub bridge: String,
    /// Its VLANs.
    pub attach: Attach,
    /// Whether it passes nothing to the bridge's other isolated ports.
    pub isolated: bool,
}

/// A link of the host, not ours, that joins a bridge and hands its addresses to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Uplink {
    /// Kernel name of the link.
    pub link: String,
    /// Kernel name of the bridge.
    pub bridge: String,
    /// Its VLANs, on a bridge that filters.
    pub attach: Attach,
}

/// A tap, made before its domain and handed over unmanaged.
#[derive(Debug, Clone, PartialEq)]
pub struct Tap {
    /// Kernel name.
    pub link: String,
    /// Bytes.
    pub mtu: u32,
    /// Where it is plugged in.
    pub port: Port,
}

/// A veth pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Veth {
    /// The first end usually lives on the host.
    pub ends: [VethEnd; 2],
}

/// One end of a veth pair.
#[derive(Debug, Clone, PartialEq)]
pub struct VethEnd {
    /// Where.
    pub place: Place,
    /// Kernel name there.
    pub link: String,
    /// MAC address.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
    /// The bridge it is plugged into, on the host.
    pub port: Option<Port>,
    /// Static addresses.
    pub addresses: Vec<IpNetwork>,
    /// Whether a guest's interface takes IPv6 addresses from router advertisements; `None` on the host, where that is
    /// not ours to say. The kernel asks only when the interface is made.
    pub advertised: Option<bool>,
    /// Whether IPv4 packets for the host's loopback may come in here (`route_localnet`).
    pub route_localnet: bool,
}

/// Static routes of a place, all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Where.
    pub place: Place,
    /// Sorted by destination.
    pub routes: Vec<Route>,
}

/// Kernel settings of a place, by path below `/proc/sys/net`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sysctls {
    /// Where.
    pub place: Place,
    /// Path to value.
    pub values: BTreeMap<String, String>,
}

/// Name of the host's table for bridges; a guest's name has no dot.
pub const BRIDGE_RULESET: &str = "host.bridge";

/// What an nftables table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RulesetFamily {
    /// IPv4 and IPv6 packets of a place.
    #[default]
    Inet,
    /// Frames that bridges pass on, take in or send.
    Bridge,
}

impl RulesetFamily {
    /// nftables' name for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            RulesetFamily::Inet => "inet",
            RulesetFamily::Bridge => "bridge",
        }
    }
}

/// An nftables table.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    /// Where.
    pub place: Place,
    /// What it sees. The host has one of each family at most: `host` and [`BRIDGE_RULESET`].
    pub family: RulesetFamily,
    /// The table's name.
    pub table: String,
    /// A whole script for `nft -f`: it replaces the table in one transaction. Empty in what was found.
    pub script: String,
    /// The host's ports that it forwards, which no other lab may. Empty in what was found.
    pub ports: Vec<HostPort>,
}

/// A process that is kept running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Where.
    pub place: Place,
    /// Program and arguments; `{dir}` stands for the service's own directory.
    pub argv: Vec<String>,
    /// Files in the service's directory, by name; `{dir}` likewise, and [`crate::dhcp::RESOLVERS`] for a file of the host's.
    pub files: BTreeMap<String, String>,
}

/// A domain and its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Guest.
    pub guest: String,
    /// libvirt's name for it.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// NICs in order: MAC, tap or macvtap, MTU.
    pub nics: Vec<(Mac, String, u32)>,
    /// What it boots.
    pub image: crate::topology::Image,
    /// What its seed tells it.
    pub config: GuestConfig,
}
