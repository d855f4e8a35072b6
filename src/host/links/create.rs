//! Making links. Every one gets the lab's group in the request that creates it, then its alias, then its place on a
//! bridge with its VLANs, and is brought up last: it never carries a frame before it is configured.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoData, InfoKind,
    InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::change::{set_addresses, set_up};
use super::wire::Wire;
use super::{Links, device};
use crate::error::{Context, Error, Result};
use crate::host::{netns, sys, sysctl};
use crate::resource::{Bridge, Id, Place, Port, Tap, Veth, VethEnd, mark, names};
use crate::topology::Attach;

/// Timers of STP in hundredths of a second: the least the kernel allows. The usual ones (15, 2 and 20 s) are for
/// buildings full of switches, and keep a port silent for half a minute.
const FORWARD_DELAY: u32 = 200;
const HELLO_TIME: u32 = 100;
const MAX_AGE: u32 = 600;

impl Links {
    /// Makes a bridge and brings it up.
    ///
    /// # Errors
    /// When a name is taken or the kernel refuses.
    pub async fn create_bridge(&self, id: &Id, bridge: &Bridge) -> Result<()> {
        // Chosen by us, it need not be asked for.
        let index = device::free_index();
        let mut message = LinkBridge::new(&bridge.link)
            .index(index)
            .address(bridge.mac.0.to_vec())
            .mtu(bridge.mtu)
            .link_group(names::group(&self.lab))
            .stp_state(if bridge.stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled })
            .forward_delay(FORWARD_DELAY)
            .hello_time(HELLO_TIME)
            .max_age(MAX_AGE);
        if bridge.vlan_filtering {
            message = message.vlan_filtering(true).vlan_default_pvid(0);
        }
        let wire = self.at(&Place::Host)?;
        add(&wire, &bridge.link, message.build())?;
        let arp = answers_arp(bridge.host_leg);
        let marked = wire.set_link(self.marked_and(id, index, bridge.host_leg, vec![arp]).build());
        marked.context(|| format!("cannot mark link `{}`", bridge.link))?;
        listen(&bridge.link, bridge.host_leg, true)?;
        self.set_own_vlans(index, bridge, None).await?;
        set_addresses(&wire, index, &bridge.addresses)?;
        set_up(&wire, index, true)
    }

    /// Makes a veth pair; each end is born in its own place.
    ///
    /// # Errors
    /// When a name is taken, a place is missing or the kernel refuses.
    pub async fn create_veth(&self, id: &Id, veth: &Veth) -> Result<()> {
        let [near, far] = &veth.ends;
        // One queue is what an end uses unless it is told otherwise. Not asked for, the kernel makes one for each processor
        // first and takes all others away again, for which it waits for every processor, with the lock of all links held
        // (`veth_init_queues`, `netif_set_real_num_tx_queues`).
        let mut peer = LinkUnspec::new_with_name(&far.link)
            .address(far.mac.0.to_vec())
            .mtu(far.mtu)
            .link_group(names::group(&self.lab))
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1));
        let namespace: Option<OwnedFd> = match &far.place {
            Place::Host => None,
            Place::Netns(name) => Some(netns::open(name)?),
        };
        if let Some(fd) = &namespace {
            peer = peer.setns_by_fd(fd.as_raw_fd());
        }
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(near.link.clone())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .address(near.mac.0.to_vec())
            .mtu(near.mtu)
            .link_group(names::group(&self.lab))
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1));
        for end in &veth.ends {
            before_birth(&end.place, end.advertised)?;
        }
        add(&*self.at(&near.place)?, &near.link, message.build())?;
        for end in &veth.ends {
            self.finish_end(id, end).await?;
        }
        Ok(())
    }

    /// Marks an end, plugs it in, and brings it up last.
    async fn finish_end(&self, id: &Id, end: &VethEnd) -> Result<()> {
        let wire = self.at(&end.place)?;
        let index = index_of(&wire, &end.link)?;
        let mut message = self.marked(id, index, end.port.is_none());
        if let Some(port) = &end.port {
            message = message.controller(index_of(&wire, &port.bridge)?);
        }
        let marked = wire.set_link(message.build());
        marked.context(|| format!("cannot mark link `{}` and plug it in", end.link))?;
        if let Some(port) = &end.port {
            self.configure_port(index, port).await?;
        }
        set_addresses(&wire, index, &end.addresses)?;
        if end.route_localnet {
            admit_loopback(&end.link, true)?;
        }
        set_up(&wire, index, true)
    }

    /// Makes a persistent tap, owned by the user that libvirt will open it as.
    ///
    /// # Errors
    /// Exit 3 when the tun device is missing or closed to us; exit 4 when the kernel refuses.
    pub async fn create_tap(&self, id: &Id, tap: &Tap) -> Result<()> {
        let owner = nix::unistd::geteuid().as_raw();
        // Not yet persistent: the kernel gives it neither group nor alias at birth, and a tap that carries no mark must
        // not outlive this process.
        let device = sys::create_tap(&tap.link, device::free_index(), owner)?;
        let index = self.adopt(id, &Place::Host, &tap.link, false).await?;
        let wire = self.at(&Place::Host)?;
        let message =
            LinkUnspec::new_with_index(index).mtu(tap.mtu).link_group(names::group(&self.lab)).build();
        wire.set_link(message).context(|| format!("cannot configure tap `{}`", tap.link))?;
        sys::keep_tap(&tap.link, &device)?;
        drop(device);
        self.plug(index, &tap.port).await?;
        self.set_up(&Place::Host, index, true).await
    }

    pub(super) async fn add(&self, place: &Place, name: &str, message: LinkMessage) -> Result<()> {
        add(&*self.at(place)?, name, message)
    }

    /// A request that marks a link that was just made. Without a host leg it gets no IPv6 link-local address either
    /// (`addr_gen_mode none`), so that the host is not reachable where it promised to be absent.
    fn marked(&self, id: &Id, index: u32, host_leg: bool) -> LinkMessageBuilder<LinkUnspec> {
        self.marked_and(id, index, host_leg, Vec::new())
    }

    /// The same, with more settings of address families.
    fn marked_and(
        &self,
        id: &Id,
        index: u32,
        host_leg: bool,
        mut settings: Vec<AfSpecUnspec>,
    ) -> LinkMessageBuilder<LinkUnspec> {
        let message = LinkUnspec::new_with_index(index).alias(mark::write(&self.lab, id));
        if !host_leg {
            settings.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]));
        }
        if settings.is_empty() {
            return message;
        }
        message.append_extra_attribute(LinkAttribute::AfSpecUnspec(settings))
    }

    /// Marks a link that was just made, and says its index.
    pub(super) async fn adopt(&self, id: &Id, place: &Place, link: &str, host_leg: bool) -> Result<u32> {
        let wire = self.at(place)?;
        let index = index_of(&wire, link)?;
        let marked = wire.set_link(self.marked(id, index, host_leg).build());
        marked.context(|| format!("cannot mark link `{link}`"))?;
        Ok(index)
    }

    /// Makes a link a port of its bridge. Its VLANs and its isolation are set before it comes up.
    pub(super) async fn plug(&self, index: u32, port: &Port) -> Result<()> {
        let wire = self.at(&Place::Host)?;
        let bridge = index_of(&wire, &port.bridge)?;
        let message = LinkUnspec::new_with_index(index).controller(bridge).build();
        wire.set_link(message).context(|| format!("cannot plug a port into bridge `{}`", port.bridge))?;
        self.configure_port(index, port).await
    }

    async fn configure_port(&self, index: u32, port: &Port) -> Result<()> {
        if port.isolated {
            self.set_isolated(index, true).await?;
        }
        self.set_port_vlans(index, &port.attach, &Attach::Plain).await
    }

    /// Settings of a port go through RTM_NEWLINK of a link that is one already: the kernel looks at them before it
    /// plugs a link in.
    pub(super) async fn set_isolated(&self, index: u32, isolated: bool) -> Result<()> {
        let message = LinkBridgePort::new(index).isolated(isolated).build();
        let wire = self.at(&Place::Host)?;
        wire.change_link(message).context(|| "cannot isolate a port".into())
    }
}

/// Says what a link is to be born with in a namespace of netloom's.
pub(super) fn before_birth(place: &Place, advertised: Option<bool>) -> Result<()> {
    match place {
        Place::Host => Ok(()), // how the host's links are born is its own affair
        Place::Netns(_) => sysctl::before_birth(place, advertised == Some(true)),
    }
}

fn add(wire: &Wire, name: &str, message: LinkMessage) -> Result<()> {
    let (tagged, tap) = (has_vlans(&message), is_macvtap(&message));
    match wire.add_link(message) {
        Err(e) if e.is(libc::EOPNOTSUPP) && tap => {
            Err(Error::host(format!("cannot create link `{name}`: this kernel has no macvtap"))
                .caused_by(e)
                .hint("VMs on a network without a bridge need it: `sudo modprobe macvtap`; namespace guests (`--guests namespace`) do not"))
        }
        Err(e) if e.is(libc::EOPNOTSUPP) && !tagged => {
            Err(Error::host(format!("cannot create link `{name}`: this kernel lacks what it needs"))
                .caused_by(e)
                .hint("`netloom doctor` says what is missing and what mends it"))
        }
        Err(e) if e.is(libc::EOPNOTSUPP) => {
            Err(Error::host(format!("cannot create link `{name}`: this kernel has no VLANs"))
                .caused_by(e)
                .hint("a lab with VLANs needs 802.1Q and VLAN filtering (modules `8021q` and `bridge`); `netloom doctor` says what is missing and what mends it"))
        }
        Err(e) if e.is(libc::EPERM) => {
            Err(Error::host(format!("may not create link `{name}`"))
                .caused_by(e)
                .hint("run as root, or use `netloom up --sandbox`, which needs no privilege"))
        }
        other => other.context(|| format!("cannot create link `{name}`")),
    }
}

/// The index of a link by its name.
pub(crate) fn index_of(wire: &Wire, link: &str) -> Result<u32> {
    match wire.index_of(link) {
        Err(e) if e.is(libc::ENODEV) => Err(Error::failed(format!("link `{link}` does not exist"))),
        other => other.context(|| format!("cannot look up link `{link}`")),
    }
}

fn infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten()
}

fn is_macvtap(message: &LinkMessage) -> bool {
    infos(message).any(|info| matches!(info, LinkInfo::Kind(InfoKind::MacVtap)))
}

/// Whether a request is for a VLAN interface, or for a bridge that keeps VLANs apart.
fn has_vlans(message: &LinkMessage) -> bool {
    let filters = |data: &InfoBridge| matches!(data, InfoBridge::VlanFiltering(true));
    infos(message).any(|info| match info {
        LinkInfo::Kind(kind) => *kind == InfoKind::Vlan,
        LinkInfo::Data(InfoData::Bridge(list)) => list.iter().any(filters),
        _ => false,
    })
}

/// The value of `arp_ignore` that answers for no address (ip-sysctl).
pub(super) const ARP_IGNORE_ALL: u8 = 8;

/// `IFLA_INET_CONF` and `IPV4_DEVCONF_ARP_IGNORE` (linux/if_link.h, linux/ip.h).
const INET_CONF: u16 = 1;
const ARP_IGNORE: u16 = 19;

/// Whether a link answers ARP for the host. Below `/proc/sys` each link's setting would have to be searched among those of all
/// namespaces.
fn answers_arp(host_leg: bool) -> AfSpecUnspec {
    let value = if host_leg { 0 } else { ARP_IGNORE_ALL };
    let mut setting = [8_u16, ARP_IGNORE].map(u16::to_ne_bytes).concat(); // a netlink attribute of eight octets
    setting.extend(u32::from(value).to_ne_bytes());
    AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(INET_CONF, setting))])
}

/// Whether the host takes part on a bridge or VLAN interface. By itself it would: it answers ARP for any of its addresses,
/// on a link without one, too (`arp_ignore`: 0 any local address, 8 none), and makes itself IPv6 addresses of whatever
/// prefix a router there advertises. Where it takes part already, `before`, as it does on a new link, what it does with
/// advertisements is left alone: it may have been told.
pub(super) fn take_part(wire: &Wire, index: u32, link: &str, host_leg: bool, before: bool) -> Result<()> {
    let arp = LinkAttribute::AfSpecUnspec(vec![answers_arp(host_leg)]);
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(arp).build();
    wire.set_link(message).context(|| format!("cannot set how `{link}` answers ARP"))?;
    listen(link, host_leg, before)
}

/// The part of it that is about router advertisements.
fn listen(link: &str, host_leg: bool, before: bool) -> Result<()> {
    if host_leg && before {
        return Ok(());
    }
    let of = |link: &str| format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
    // What a new link of this host does; there is nothing to read where IPv6 is off.
    let Ok(usual) = std::fs::read_to_string(of("default")) else { return Ok(()) };
    std::fs::write(of(link), if host_leg { usual.trim() } else { "0" })
        .context(|| format!("cannot set whether `{link}` listens to router advertisements"))
}

/// Lets packets for the loopback in by a link of the host, or not.
pub(super) fn admit_loopback(link: &str, on: bool) -> Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), if on { "1" } else { "0" })
        .context(|| format!("cannot set whether `{link}` takes packets for the loopback"))
}
