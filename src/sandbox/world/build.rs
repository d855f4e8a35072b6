//! Namespaces, links, addresses and routes of the world, through rtnetlink. They carry no mark: they belong to the
//! sandbox, not to a lab, and go with it.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{BridgeStpState, InfoData, InfoKind, InfoVeth, VlanProtocol};
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, RouteMessageBuilder,
};

use super::servers::{self, StandIn};
use super::{
    HOST_ADDRESSES, HOST_LINK, LAN_ADDRESSES, LAN_NETNS, OUTSIDE_ADDRESSES, OUTSIDE_NETNS, PREFIX_LENGTHS,
    ROUTER_ADDRESSES, ROUTER_NETNS, ROUTER_OUTSIDE_ADDRESSES, SEGMENT_LENGTHS, SEGMENTS, Segment, has_ipv6,
};
use crate::error::{Context, Result};
use crate::host::links::index_of;
use crate::host::links::wire::{self, Wire};
use crate::host::{netns, nft};
use crate::resource::Place;

/// The router's bridge.
pub(super) const ROUTER_LINK: &str = "lan0";
/// Its port towards the host.
const HOST_PORT: &str = "to-host";

/// One network stack with its socket.
struct Stack {
    place: Place,
    wire: Wire,
}

/// Builds everything and starts the servers; returns when they answer.
pub(in crate::sandbox) fn build() -> Result<Vec<StandIn>> {
    for name in [ROUTER_NETNS, LAN_NETNS, OUTSIDE_NETNS] {
        netns::create(name)?;
    }
    let host = Stack::open(Place::Host, &[("ipv4/ip_forward", "0")])?;
    // The way to routed networks leads back into the LAN; a redirect for each such packet would confuse probes.
    let forwarding = [
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
    ];
    let router = Stack::open(Place::Netns(ROUTER_NETNS.into()), &forwarding)?;
    let deaf = [("ipv6/conf/default/accept_ra", "0")];
    let lan = Stack::open(Place::Netns(LAN_NETNS.into()), &deaf)?;
    let outside = Stack::open(Place::Netns(OUTSIDE_NETNS.into()), &deaf)?;

    let message = LinkBridge::new(ROUTER_LINK).stp_state(BridgeStpState::Disabled).build();
    let made = router.wire.add_link(message);
    made.context(|| "cannot create the bridge of the sandbox's router".into())?;
    router.set_addresses(ROUTER_LINK, &ROUTER_ADDRESSES, PREFIX_LENGTHS)?;
    let bridge = router.index(ROUTER_LINK)?;
    for (port, far) in [(HOST_PORT, &host), ("to-lan", &lan)] {
        router.connect(port, far)?;
        let message = LinkUnspec::new_with_index(router.index(port)?).controller(bridge).build();
        let plugged = router.wire.set_link(message);
        plugged.context(|| format!("cannot plug `{port}` into the sandbox's LAN"))?;
    }
    router.connect("out0", &outside)?;
    router.set_addresses("out0", &ROUTER_OUTSIDE_ADDRESSES, PREFIX_LENGTHS)?;
    // The host's addresses are static; on its other links advertisements work as on any host.
    host.configure(vec![(format!("ipv6/conf/{HOST_LINK}/accept_ra"), "0".into())])?;
    for (stack, addresses, gateways) in [
        (&host, HOST_ADDRESSES, ROUTER_ADDRESSES),
        (&lan, LAN_ADDRESSES, ROUTER_ADDRESSES),
        (&outside, OUTSIDE_ADDRESSES, ROUTER_OUTSIDE_ADDRESSES),
    ] {
        stack.set_addresses(HOST_LINK, &addresses, PREFIX_LENGTHS)?;
        stack.set_default_routes(&gateways)?;
    }
    let segments = segments(&router, &lan)?;
    let servers = servers::start(segments)?;
    if !segments.is_empty() {
        keep_apart(&router)?;
    }
    Ok(servers)
}

/// The VLANs of the LAN; none where the kernel has no VLANs.
fn segments(router: &Stack, lan: &Stack) -> Result<&'static [Segment]> {
    for segment in &SEGMENTS {
        for (stack, link, addresses) in [(router, ROUTER_LINK, segment.router), (lan, HOST_LINK, segment.lan)]
        {
            let Some(leg) = stack.tag(link, segment)? else { return Ok(&[]) };
            stack.set_addresses(&leg, &addresses, SEGMENT_LENGTHS)?;
        }
    }
    Ok(&SEGMENTS)
}

/// Routes nothing from one segment of the LAN to another.
fn keep_apart(router: &Stack) -> Result<()> {
    // Between a routed network behind the host and the LAN, packets enter and leave by the untagged link.
    let script = format!(
        "table inet world {{\n\tchain forward {{\n\t\ttype filter hook forward priority filter; policy accept;\n\
         \t\tiifname \"{ROUTER_LINK}.*\" oifname \"{ROUTER_LINK}*\" drop\n\
         \t\tiifname \"{ROUTER_LINK}*\" oifname \"{ROUTER_LINK}.*\" drop\n\t}}\n}}\n"
    );
    nft::feed(&router.place, &script).context(|| "cannot keep the VLANs of the sandbox's LAN apart".into())
}

/// Sets whether the bridge sends frames back to the host's port.
pub(super) fn set_hairpin(on: bool) -> Result<()> {
    let router = Stack::open(Place::Netns(ROUTER_NETNS.into()), &[])?;
    let message = LinkBridgePort::new(router.index(HOST_PORT)?).hairpin(on).build();
    let changed = router.wire.change_link(message);
    changed.context(|| "cannot change the switch of the sandbox's LAN".into())
}

impl Stack {
    /// Opens a socket, sets the kernel settings (before there is any link) and brings loopback up.
    fn open(place: Place, settings: &[(&str, &str)]) -> Result<Self> {
        let wire = netns::within(&place, Wire::open)?.context(|| "cannot open a netlink socket".into())?;
        let stack = Self { place, wire };
        // Addresses serve at once without duplicate detection; anyone inside may ping without privilege.
        let common = [
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv4/ping_group_range", "0 0"),
        ];
        let all = common.iter().chain(settings);
        stack.configure(all.map(|(path, value)| ((*path).into(), (*value).into())).collect())?;
        stack.raise("lo")?;
        Ok(stack)
    }

    /// Writes settings below `/proc/sys/net`; those of a protocol the kernel lacks are left out.
    fn configure(&self, settings: Vec<(String, String)>) -> Result<()> {
        netns::within(&self.place, move || {
            for (path, value) in &settings {
                let file = Path::new("/proc/sys/net").join(path);
                if file.exists() {
                    fs::write(file, value).context(|| format!("cannot set sysctl net/{path} to {value}"))?;
                }
            }
            Ok(())
        })?
    }

    fn index(&self, link: &str) -> Result<u32> {
        index_of(&self.wire, link)
    }

    /// A veth pair, up at both ends: `near` here, the host's link name in `far`.
    fn connect(&self, near: &str, far: &Stack) -> Result<()> {
        let namespace: OwnedFd = match &far.place {
            Place::Netns(name) => netns::open(name)?,
            Place::Host => fs::File::open("/proc/thread-self/ns/net")
                .context(|| "cannot open the sandbox's own network namespace".into())?
                .into(),
        };
        let peer = LinkUnspec::new_with_name(HOST_LINK).setns_by_fd(namespace.as_raw_fd()).build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(near.to_owned())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let made = self.wire.add_link(message);
        made.context(|| format!("cannot create the sandbox's link `{near}`"))?;
        // An end cannot be up before it has its peer.
        self.raise(near)?;
        far.raise(HOST_LINK)
    }

    fn raise(&self, link: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(self.index(link)?).up().build();
        let raised = self.wire.set_link(message);
        raised.context(|| format!("cannot bring up `{link}` in the sandbox"))
    }

    /// An interface for the frames of a VLAN of a link; returns its name, or nothing where the kernel has no VLANs.
    fn tag(&self, link: &str, segment: &Segment) -> Result<Option<String>> {
        let mut parent = link.to_owned();
        for (position, vid) in segment.tags.iter().enumerate() {
            let protocol = match position + 1 == segment.tags.len() {
                true => VlanProtocol::Ieee8021Q,
                false => VlanProtocol::Ieee8021Ad,
            };
            let name = format!("{parent}.{vid}");
            let message = LinkVlan::new(&name, self.index(&parent)?, *vid).protocol(protocol).build();
            match self.wire.add_link(message) {
                Err(e) if e.is(libc::EOPNOTSUPP) => return Ok(None),
                made => made.context(|| format!("cannot create the sandbox's link `{name}`"))?,
            }
            self.raise(&name)?;
            parent = name;
        }
        Ok(Some(parent))
    }

    fn set_addresses(&self, link: &str, addresses: &[IpAddr], lengths: [u8; 2]) -> Result<()> {
        let index = self.index(link)?;
        for (address, length) in usable(addresses).zip(lengths) {
            let mut message = wire::address(index, address, length);
            if address.is_ipv6() {
                message.header.flags |= AddressHeaderFlags::Nodad;
            }
            self.wire
                .add_address(message)
                .context(|| format!("cannot set address {address} in the sandbox"))?;
        }
        Ok(())
    }

    fn set_default_routes(&self, gateways: &[IpAddr]) -> Result<()> {
        for gateway in usable(gateways) {
            let route = match gateway {
                IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(ip).build(),
                IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(ip).build(),
            };
            let added = self.wire.add_route(route);
            added.context(|| format!("cannot set the default route via {gateway} in the sandbox"))?;
        }
        Ok(())
    }
}

/// IPv4 comes first in every list of addresses.
fn usable(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let count = if has_ipv6() { addresses.len() } else { 1 };
    addresses.iter().take(count).copied()
}
