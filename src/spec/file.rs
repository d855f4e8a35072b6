//! The mappings of the language, each declared once.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::addresses::{Destination, Interface, Subnet};
use super::decode::{At, Cx, Decode, Defs, List, Many, Slot, wrong_type};
use super::mapping::{Key, Mapping, Members, Table, TableKey, mapping, mapping_schema};
use super::tree::{Kind, Node, Plain, resolve};
use super::values::{
    Cpus, Family, Flavour, LabName, Memory, ModeName, Mtu, PortNumber, Ports, Sha256, Vid, Vni,
};
use crate::diagnostic::Sink;
use crate::mode::Egress;
use crate::topology::{AddressRange, ExpectedVerdict, GuestKind, Mac, Pvlan, RuleAction, Service};

macro_rules! table_key {
    ($name:ident, $noun:literal, $reserved:expr) => {
        /// Names of one sort.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum $name {}
        impl TableKey for $name {
            const NOUN: &'static str = $noun;
            const RESERVED: &'static [&'static str] = $reserved;
        }
    };
}
table_key!(NetworkName, "network", &[]);
table_key!(VlanName, "VLAN", &["all"]);
table_key!(GuestName, "guest", &["host", "outside", "lan", "self", "any"]);
table_key!(ZoneName, "zone", &["self", "any"]);

mapping! {
    "the file", "A lab: networks, guests, and what is expected of them.",
    File {
        lab: required At<LabName> = "Name of the lab. Everything that is built is marked with it.",
        networks: optional Table<NetworkName, Network> = "Networks by name.",
        links: optional List<Link> = "Cables between the bridges of two networks.",
        guests: optional Table<GuestName, Guest> = "Guests by name.",
        expect: optional List<Expect> = "What must be reachable and what must be blocked.",
        outside: optional Many<At<IpAddr>> = "Addresses that `outside` stands for on a real host; a sandbox brings its own.",
    }
}

mapping! {
    "a network", "A network: a bridge, and what the host adds to it.",
    Network {
        mode: required At<ModeName> = "What the network promises: `nat`, `routed`, `host-only`, `internal`, `bridged`, or a construct of another system such as `vmware/nat` (`netloom modes` lists them).",
        subnet: optional Many<At<Subnet>> = "Subnet, at most one of each family. Modes with a gateway need one, unless they have a default.",
        vlans: optional Table<VlanName, VlanChoice> = "VLANs by name; makes the bridge VLAN-aware, so that every NIC says `vlan` or `trunk`.",
        host: optional HostChoice = "The host's own address. Default: the first of each subnet, where the mode gives the host a leg.",
        dhcp: optional DhcpChoice = "Whether guests get addresses from the host, or the IPv4 range they get. Default: yes, where the mode has DHCP; the range is .100 to .199 of a /24 and the upper half of any other subnet.",
        dns: optional At<bool> = "Whether the host answers DNS here. Default: yes, where the mode has DNS.",
        mtu: optional At<Mtu> = "MTU of the bridge and its ports in bytes; with IPv6 at least 1280. Default: 1500.",
        stp: optional At<bool> = "Whether the bridge speaks STP. Default: no.",
        egress: optional At<Egress> = "How guests get beyond the gateway: `none`, `routed` with their own addresses, or `masquerade` behind its address. Default: the mode's.",
        ingress: optional At<bool> = "Whether new connections may come in from beyond the gateway, or from the uplink that is a port of the bridge. Default: the mode's.",
        forward: optional List<PortForward> = "Port forwards to guests, for modes that have them.",
        external: optional External = "The leg of the network's own router on the uplink, for modes that have one.",
        uplink: optional At<String> = "Link of the host that the network joins, for modes that join one, such as `bridged`.",
        tag: optional Many<At<Vid>> = "VLAN of the uplink that the network is, by VID; guests see its frames untagged. `[outer, inner]` is a VLAN in a VLAN (QinQ, IEEE 802.1ad). Default: the untagged frames.",
    }
}

mapping! {
    "a port forward", "What arrives for a port of the host, or of the network's own router, goes to a guest.",
    PortForward {
        service: required At<Ports> = "Port or ports that are forwarded: `tcp/8080`, `udp/5000-5010`.",
        to: required At<String> = "The guest, or one of its addresses; `web:80` changes the port.",
        address: optional At<IpAddr> = "The one address it is forwarded from. Default: every address of the host or router.",
    }
}

mapping! {
    "an external leg", "What the network's own router is on the uplink's network.",
    External {
        address: required Many<At<Interface>> = "Its addresses with prefix length, at most one of each family.",
        gateway: optional Many<At<IpAddr>> = "Its default gateway, at most one of each family.",
    }
}

mapping! {
    "a VLAN", "A VLAN of a network.",
    Vlan {
        id: required At<Vid> = "The VID.",
        subnet: optional Many<At<Subnet>> = "Subnet, at most one of each family. Optional: the guests' addresses may say it alone.",
        host: optional HostChoice = "Gives the host a tagged leg in this VLAN: `true` for the first address of each subnet, or the address. Default: no leg.",
    }
}

mapping! {
    "a link", "A cable between the bridges of two networks.",
    Link {
        between: required List<At<String>, 2, 2> = "The two networks, as `[one, other]`.",
        trunk: optional TrunkChoice = "VLANs that travel tagged, by name, or `all` that both networks have. Their VIDs must be the same on both sides.",
        native: optional At<String> = "VLAN whose frames travel untagged.",
        vxlan: optional At<Vni> = "Makes it a tunnel between two nodes, by its VXLAN network identifier (RFC 7348, UDP port 4789). Each network is then on a node of its own, with an address of its own on a network between them.",
    }
}

mapping! {
    "a guest", "A guest: a VM or a network namespace.",
    Guest {
        kind: optional At<GuestKind> = "`vm` is a libvirt domain, `namespace` a network namespace with processes. Default: `vm`.",
        image: optional ImageChoice = "Disk image of a VM: a path, a name or a URL. Default: the built-in image.",
        memory: optional At<Memory> = "Memory of a VM, at least 96 MiB; with the built-in image it gets no less than that boots in. Default: 128 MiB.",
        cpus: optional At<Cpus> = "CPUs of a VM. Default: 1.",
        nics: required List<Nic, 1> = "NICs in order: the first is `eth0` in the guest.",
        routes: optional List<Route> = "Static routes.",
        router: optional At<bool> = "Whether it forwards between its NICs without being a firewall. Default: no.",
        serve: optional Many<At<Service>> = "TCP and UDP services it answers, each with one line of text. ICMP echo is answered without being named.",
        firewall: optional Firewall = "Makes it a firewall.",
        forward: optional List<GuestForward> = "Port forwards to it, where a network of its has them: the same as `forward` there.",
    }
}

mapping! {
    "a guest's port forward", "What arrives for a port of the host, or of the network's own router, goes to this guest.",
    GuestForward {
        service: required At<Ports> = "Port or ports that are forwarded: `tcp/8080`, `udp/5000-5010`.",
        port: optional At<PortNumber> = "The guest's port. Default: the same one.",
        address: optional At<IpAddr> = "The one address it is forwarded from. Default: every address of the host or router.",
        network: optional At<String> = "The network it comes through; needed when several of the guest's networks have forwards.",
    }
}

mapping! {
    "an image", "A disk image and its checksum.",
    Image {
        source: required At<String> = "Path, name of an imported image, or URL.",
        sha256: optional At<Sha256> = "SHA-256 of the image in hex. A URL needs it.",
    }
}

mapping! {
    "a NIC", "A NIC and the port it is plugged into.",
    Nic {
        network: required At<String> = "The network it is plugged into.",
        name: optional At<String> = "How zones and `via` call the NIC. Default: the network's name; needed when a guest has two NICs on one network (or in one VLAN of it).",
        vlan: optional At<String> = "VLAN the port is an untagged member of (an access port).",
        trunk: optional TrunkChoice = "VLANs that reach the guest tagged (a trunk port), or `all`. The guest has one interface for each.",
        native: optional At<String> = "VLAN that reaches the guest untagged on a trunk port.",
        address: optional Many<At<Interface>> = "Addresses with prefix length. Default: dynamic, where someone hands them out, else none.",
        addresses: optional Table<VlanName, Many<At<Interface>>> = "Addresses on a trunk, by VLAN.",
        gateway: optional Many<At<IpAddr>> = "Default gateway, at most one of each family. Default on `nat` and `routed`: the host.",
        mac: optional At<Mac> = "MAC address. Default: one that stays the same for this lab, guest and position.",
        mtu: optional At<Mtu> = "MTU in bytes, at most the network's. Default: the network's.",
        pvlan: optional At<Pvlan> = "Who else on the bridge hears this port, as in a private VLAN: `promiscuous` (everybody), `isolated` (promiscuous ports alone), or the name of a community (its own ports and promiscuous ones). The uplink, cables and the host's leg are promiscuous. Default: `promiscuous`; `isolated` where the mode keeps guests apart.",
    }
}

mapping! {
    "a route", "A static route of a guest.",
    Route {
        to: required At<Destination> = "Where it leads.",
        via: required At<IpAddr> = "Next hop, in a subnet of one of the guest's NICs.",
    }
}

mapping! {
    "a firewall", "Makes a guest a stateful firewall: what no rule accepts is dropped.",
    Firewall {
        flavour: optional At<Flavour> = "Which firewall; there is `linux`. Default: `linux`.",
        zones: required Table<ZoneName, Many<At<String>>> = "Zones by name, each with its NICs: `wan`, or `core.lan` for VLAN `lan` of the NIC on `core`.",
        masquerade: optional Many<At<String>> = "Zones whose outgoing traffic takes the firewall's address.",
        dhcp: optional Table<ZoneName, At<AddressRange>> = "DHCP ranges to serve, by zone. The firewall needs a static IPv4 address there.",
        rules: optional List<Rule> = "Rules in order; the first that fits decides.",
    }
}

mapping! {
    "a rule", "A firewall rule.",
    Rule {
        from: required Many<At<String>> = "Source zones, `any`, or `self` for the firewall itself.",
        to: required Many<At<String>> = "Destination zones, `any`, or `self` for the firewall itself.",
        service: optional Many<At<Service>> = "Services. Default: all traffic.",
        action: optional At<RuleAction> = "What happens. Default: `accept`.",
        forward: optional At<String> = "Port forward: what arrives from `from` at the firewall's own address goes to this guest or address instead; `guest:port` changes the port.",
    }
}

mapping! {
    "an expectation", "What a probe from one endpoint to another must find.",
    Expect {
        from: required At<String> = "Where the probe starts: a guest, `host`, `lan` or `outside`.",
        to: required At<String> = "Where it goes: a guest, `host`, `lan`, `outside` or an address; `web:80` means service `tcp/80` there.",
        service: optional At<Service> = "What is probed. Default: `icmp`.",
        via: optional At<String> = "Which of the target's addresses: the name of its NIC, such as `wan` or `core.lan`.",
        family: optional At<Family> = "IP family. Default: each that both ends have.",
        verdict: required At<ExpectedVerdict> = "What must come out: `reachable` or `blocked`.",
    }
}

/// `true`, `false`, or addresses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HostChoice {
    Is(At<bool>),
    Addresses(Many<At<IpAddr>>),
}

/// `true`, `false`, or a range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DhcpChoice {
    Is(At<bool>),
    Range(At<AddressRange>),
}

/// A VID alone, or with more.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum VlanChoice {
    Id(At<Vid>),
    Full(Vlan),
}

/// A source alone, or with a checksum.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ImageChoice {
    Source(At<String>),
    Full(Image),
}

/// `all`, or names of VLANs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TrunkChoice {
    All(crate::diagnostic::Span),
    Names(List<At<String>>),
}

fn is_bool(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { text, plain } => {
            matches!(resolve(text, *plain), Plain::Bool(_))
                || ["yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str())
        }
        _ => false,
    }
}

impl Decode for HostChoice {
    fn expected() -> String {
        "`true`, `false`, an address, or a list of addresses".to_owned()
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        if is_bool(node) {
            return At::decode(node, cx, sink).map(Self::Is);
        }
        Many::decode(node, cx, sink).map(Self::Addresses)
    }
    fn schema(defs: &mut Defs) -> Value {
        json!({ "anyOf": [At::<bool>::schema(defs), Many::<At<IpAddr>>::schema(defs)] })
    }
}

impl Decode for DhcpChoice {
    fn expected() -> String {
        "`true`, `false`, or a range of IPv4 addresses such as `10.0.0.100-10.0.0.199`".to_owned()
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        if is_bool(node) {
            return At::decode(node, cx, sink).map(Self::Is);
        }
        if !matches!(&node.kind, Kind::Scalar { .. }) {
            wrong_type(node, cx, &Self::expected(), sink);
            return None;
        }
        At::decode(node, cx, sink).map(Self::Range)
    }
    fn schema(defs: &mut Defs) -> Value {
        json!({ "anyOf": [At::<bool>::schema(defs), At::<AddressRange>::schema(defs)] })
    }
}

impl Decode for VlanChoice {
    fn expected() -> String {
        "a VID from 1 to 4094, or a mapping with `id`, `subnet` and `host`".to_owned()
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        match &node.kind {
            Kind::Mapping(_) => Vlan::decode(node, cx, sink).map(Self::Full),
            Kind::Scalar { .. } => At::decode(node, cx, sink).map(Self::Id),
            Kind::Sequence(_) => {
                wrong_type(node, cx, &Self::expected(), sink);
                None
            }
        }
    }
    fn schema(defs: &mut Defs) -> Value {
        json!({ "anyOf": [At::<Vid>::schema(defs), Vlan::schema(defs)] })
    }
}

impl Decode for ImageChoice {
    fn expected() -> String {
        "a path, a name or a URL, or a mapping with `source` and `sha256`".to_owned()
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        match &node.kind {
            Kind::Mapping(_) => Image::decode(node, cx, sink).map(Self::Full),
            Kind::Scalar { .. } => At::decode(node, cx, sink).map(Self::Source),
            Kind::Sequence(_) => {
                wrong_type(node, cx, &Self::expected(), sink);
                None
            }
        }
    }
    fn schema(defs: &mut Defs) -> Value {
        json!({ "anyOf": [At::<String>::schema(defs), Image::schema(defs)] })
    }
}

impl Decode for TrunkChoice {
    fn expected() -> String {
        "a list of VLAN names, or `all`".to_owned()
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        match &node.kind {
            Kind::Scalar { text, .. } if text == "all" => Some(Self::All(node.span)),
            Kind::Sequence(_) => List::decode(node, cx, sink).map(Self::Names),
            Kind::Scalar { text, plain } => {
                wrong_type(node, cx, &Self::expected(), sink);
                if let (Some(last), Plain::Text) = (sink.problems.last_mut(), resolve(text, *plain)) {
                    last.hint = Some(format!("write `[{text}]`"));
                }
                None
            }
            Kind::Mapping(_) => {
                wrong_type(node, cx, &Self::expected(), sink);
                None
            }
        }
    }
    fn schema(defs: &mut Defs) -> Value {
        json!({ "anyOf": [{ "const": "all" }, List::<At<String>>::schema(defs)] })
    }
}
