//! The checked model of a lab. Only `topology::check` makes one, so whoever holds a [`Topology`] knows that every
//! reference resolves, every address lies in its subnet and every VID is defined.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::policy::Firewall;
use crate::mode::{Egress, Wiring};

/// A lab: networks, guests and what is expected of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Name of the lab: `[a-z0-9-]`, 1 to 32 bytes, begins and ends with a letter or digit. All names are of this form.
    pub lab: String,
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Trunks between two networks' bridges.
    pub links: Vec<SwitchLink>,
    /// Guests by name.
    pub guests: BTreeMap<String, Guest>,
    /// What must be reachable and what must not, in the file's order.
    pub expect: Vec<Expectation>,
    /// Addresses that `outside` stands for on a real host; in a sandbox its stand-in is used instead.
    pub outside: Vec<IpAddr>,
}

/// One network: a bridge and what the host adds to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Name.
    pub name: String,
    /// The mode's id as written, such as `nat`.
    pub mode: String,
    /// What the mode expands to, the file's own choices already applied.
    pub wiring: Wiring,
    /// Untagged subnets (at most one of each family); empty when only VLANs or guests know them.
    pub subnets: Vec<IpNetwork>,
    /// VLANs by name; when not empty the bridge filters VLANs.
    pub vlans: BTreeMap<String, Vlan>,
    /// The host's own addresses on the untagged network (with prefix length); empty when it has no leg.
    pub host: Vec<IpNetwork>,
    /// The gateway's addresses on the untagged network: the host's, or those of the network's own router.
    pub gateway: Vec<IpNetwork>,
    /// The resolver's address, where it has one besides the gateway's.
    pub resolver: Option<IpNetwork>,
    /// The leg of the network's own router on the uplink.
    pub external: Option<External>,
    /// Port forwards into the network.
    pub forwards: Vec<Forward>,
    /// IPv4 leases that are promised to one NIC, because a forward leads to it.
    pub reserved: Vec<(Mac, IpAddr)>,
    /// The IPv4 range that the network's own DHCP server hands out; `None` when it has no server.
    pub dhcp: Option<AddressRange>,
    /// Link MTU in bytes of the bridge and of every port.
    pub mtu: u32,
    /// Whether the bridge speaks STP.
    pub stp: bool,
    /// Link of the host that the network joins.
    pub uplink: Option<String>,
    /// VIDs of the VLAN of the uplink that the network is: none (untagged), one, or the outer and the inner one.
    pub tags: Vec<u16>,
}

impl Network {
    /// Whether guests need the gateway, for IPv4 or for IPv6: to get beyond it, or to answer who came in through it.
    #[must_use]
    pub fn leads(&self, six: bool) -> bool {
        let used = self.wiring.egress != Egress::None || self.wiring.ingress;
        let forwarded = self.forwards.iter().any(|forward| forward.target.is_ipv6() == six);
        let beyond = |external: &External| external.addresses.iter().any(|net| net.is_ipv6() == six);
        (used && self.external.as_ref().is_none_or(beyond)) || forwarded
    }
}

/// What the network's own router is on the uplink's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its addresses with prefix length; at most one of each family. Forwards may name more.
    pub addresses: Vec<IpNetwork>,
    /// Next hops of its default routes; at most one of each family.
    pub gateways: Vec<IpAddr>,
}

/// A port forward: what arrives for a port of the gateway's outer address goes to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// First and last port that is forwarded.
    pub ports: (u16, u16),
    /// The one address it is forwarded from; `None` for every address of the host (or of the network's own router).
    pub address: Option<IpAddr>,
    /// The guest, where the file names one rather than an address.
    pub guest: Option<String>,
    /// The guest's address; its family is the forward's.
    pub target: IpAddr,
    /// The guest's port, that of the first one; a range is forwarded port by port and keeps its numbers.
    pub port: u16,
}

/// One VLAN of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Vlan {
    /// 802.1Q VLAN identifier, 1 to 4094.
    pub vid: u16,
    /// Subnets, where the file names them.
    pub subnets: Vec<IpNetwork>,
    /// The host's own addresses on a tagged leg; empty when the host has none on this VLAN.
    pub host: Vec<IpNetwork>,
}

/// An inclusive address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
}

/// A cable between the bridges of two networks.
#[derive(Debug, Clone, PartialEq)]
pub struct SwitchLink {
    /// The two networks' names.
    pub between: [String; 2],
    /// How the port sits on each of the two bridges.
    pub attach: [Attach; 2],
    /// The network identifier, where the cable is a VXLAN between two nodes rather than a plain one.
    pub vxlan: Option<u32>,
}

/// How a port sits on its bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attach {
    /// A bridge without VLANs.
    Plain,
    /// Untagged member of one VLAN: its PVID.
    Access(u16),
    /// Tagged member of many, with an optional native (untagged) VLAN. Sorted.
    Trunk {
        /// VIDs that travel tagged.
        tagged: Vec<u16>,
        /// VID of untagged frames.
        native: Option<u16>,
    },
}

/// What a port is in a private VLAN (RFC 5517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pvlan {
    /// Hears everybody, and is heard by all.
    Promiscuous,
    /// Hears promiscuous ports alone.
    Isolated,
    /// Hears its own community, by name, and promiscuous ports.
    Community(String),
}

/// What a guest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// A libvirt domain.
    Vm,
    /// A network namespace with processes.
    Namespace,
}

/// Where a VM's system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// netloom's own, built on the host from distribution packages.
    BuiltIn,
    /// A disk image: a path (absolute, or relative to the file) or the name of an imported image.
    Disk {
        /// Path or URL as written.
        source: String,
        /// Expected SHA-256 in lower-case hex.
        sha256: Option<String>,
    },
}

/// One guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    /// Name; also its host name.
    pub name: String,
    /// Kind.
    pub kind: GuestKind,
    /// Image of a VM; ignored for namespaces.
    pub image: Image,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// NICs in order: the first is `eth0`.
    pub nics: Vec<Nic>,
    /// Static routes and default gateways.
    pub routes: Vec<Route>,
    /// Makes the guest a firewall (and router).
    pub firewall: Option<Firewall>,
    /// Services it answers: each accepted TCP connection and each UDP datagram is answered with one line,
    /// `LAB/GUEST tcp/80`.
    pub serve: Vec<Service>,
    /// Whether it forwards between its NICs although it is no firewall (`router: true`).
    pub router: bool,
}

/// A guest's NIC.
#[derive(Debug, Clone, PartialEq)]
pub struct Nic {
    /// Position in the guest's list; the guest's kernel name is `eth{index}`.
    pub index: usize,
    /// Network it plugs into.
    pub network: String,
    /// How its port sits on the bridge.
    pub attach: Attach,
    /// MAC address; stable, derived from lab, guest and index unless the file names one.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// Who else on the bridge hears its port.
    pub pvlan: Pvlan,
    /// What the guest runs IP on: the NIC itself, and one VLAN interface for each tagged VLAN of a trunk.
    pub interfaces: Vec<Interface>,
}

/// A 48-bit MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}
impl std::str::FromStr for Mac {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bytes: Vec<u8> = s
            .split(':')
            .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
            .collect::<Option<_>>()
            .ok_or_else(|| format!("`{s}` is not a MAC address"))?;
        <[u8; 6]>::try_from(bytes).map(Mac).map_err(|_| format!("`{s}` is not a MAC address"))
    }
}
impl TryFrom<String> for Mac {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

/// An IP interface of a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name in the guest: `eth1`, or `eth1.10` for VID 10 on it.
    pub name: String,
    /// How files refer to it: `wan`, or `core.lan` on a VLAN.
    pub reference: String,
    /// VID, for a VLAN interface on a trunk NIC.
    pub vid: Option<u16>,
    /// Where its addresses come from.
    pub addressing: Addressing,
}

/// Where an interface's addresses come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    /// From the file, with prefix lengths.
    Static(Vec<IpNetwork>),
    /// DHCPv4, and IPv6 from router advertisements.
    Dynamic {
        /// Whether a DHCPv4 lease is expected before the guest counts as ready.
        v4: bool,
        /// Whether a global IPv6 address is expected before the guest counts as ready.
        v6: bool,
    },
    /// None: the interface is up and has no address.
    None,
}

/// A static route; the default route has prefix length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub to: IpNetwork,
    /// Next hop.
    pub via: IpAddr,
}

/// Transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// ICMP or ICMPv6 echo; has no port.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A service: `icmp`, `tcp/80`, `udp/53`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Protocol.
    pub protocol: Protocol,
    /// Port, 1 to 65535; 0 for ICMP.
    pub port: u16,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Icmp => f.write_str("icmp"),
            Protocol::Tcp => write!(f, "tcp/{}", self.port),
            Protocol::Udp => write!(f, "udp/{}", self.port),
        }
    }
}

impl std::str::FromStr for Service {
    type Err = crate::error::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let service = |protocol, port: &str| port.parse().ok().map(|port| Service { protocol, port });
        match text.split_once('/') {
            None if text == "icmp" => Some(Service { protocol: Protocol::Icmp, port: 0 }),
            Some(("tcp", port)) => service(Protocol::Tcp, port),
            Some(("udp", port)) => service(Protocol::Udp, port),
            _ => None,
        }
        .filter(|service| service.protocol == Protocol::Icmp || service.port != 0)
        .ok_or_else(|| {
            crate::error::Error::input(format!("`{text}` is not a service")).hint("icmp, tcp/80 or udp/53")
        })
    }
}

/// What the file expects of a pair of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Where the probe starts.
    pub from: Endpoint,
    /// Where it goes.
    pub to: Endpoint,
    /// What is probed.
    pub service: Service,
    /// Network (or `network.vlan`) whose address of the target is used.
    pub via: Option<String>,
    /// 4 or 6, when the file fixes the family.
    pub family: Option<u8>,
    /// What must come out.
    pub verdict: ExpectedVerdict,
    /// Line of the file, from 1.
    pub line: usize,
}

/// One end of a probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// A guest.
    Guest(String),
    /// The host as the lab sees it.
    Host,
    /// The LAN neighbour of a sandbox.
    Lan,
    /// Beyond the LAN's router.
    Outside,
    /// Any address.
    Address(IpAddr),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Guest(name) => f.write_str(name),
            Endpoint::Host => f.write_str("host"),
            Endpoint::Lan => f.write_str("lan"),
            Endpoint::Outside => f.write_str("outside"),
            Endpoint::Address(ip) => write!(f, "{ip}"),
        }
    }
}

/// What an expectation wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedVerdict {
    /// The probe is answered.
    Reachable,
    /// The probe is not answered, and a control probe proves that it could have been.
    Blocked,
}
