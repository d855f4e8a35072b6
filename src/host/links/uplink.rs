//! Uplinks of `bridged` networks: links of the host, not ours, that become ports for a while.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteFlags, RouteMessage, RouteProtocol, RouteType};

use super::{Links, PlaceState};
use crate::error::{Context, Error, Result};
use crate::resource::{Place, Port, Uplink, names};
use crate::topology::Mac;

/// The alternative name that marks an uplink: it lives and dies with the link and is found without any file.
#[must_use]
pub(super) fn altname(lab: &str, network: &str) -> String {
    format!("netloom.{lab}.uplink.{network}")
}

/// The network of an uplink's mark, when it is one of `lab`.
#[must_use]
pub fn read_altname(lab: &str, name: &str) -> Option<String> {
    let rest = name.strip_prefix("netloom.")?.strip_prefix(lab)?;
    rest.strip_prefix(".uplink.").map(str::to_owned)
}

/// The lab of an uplink's mark; `None` for any other name.
#[must_use]
pub fn lab_of_altname(name: &str) -> Option<String> {
    let (lab, network) = name.strip_prefix("netloom.")?.split_once(".uplink.")?;
    (names::is_lab(lab) && !network.is_empty()).then(|| lab.to_owned())
}

/// What an uplink hands over to its bridge, and gets back.
impl Links {
    /// Makes a link of the host, not ours, a port of `bridge` and moves its addresses and default routes there, so
    /// that the host stays reachable.
    ///
    /// # Errors
    /// When the link does not exist, is a port already, or the kernel refuses.
    pub async fn join_uplink(&self, network: &str, uplink: &Uplink) -> Result<()> {
        let Uplink { link, bridge, attach } = uplink;
        let state = self.observe(&Place::Host).await?;
        let Some(found) = state.link(link) else {
            return Err(Error::host(format!(
                "network `{network}` wants uplink `{link}`, which does not exist"
            ))
            .hint(format!("links of this host: {}", physical(&state).join(", "))));
        };
        if let Some(other) = state.name(found.controller).filter(|name| name != bridge) {
            return Err(Error::host(format!("uplink `{link}` is a port of `{other}` already"))
                .hint("name another uplink, or take it off that bridge"));
        }
        let index = found.index;
        let wire = self.at(&Place::Host)?;
        let mark = altname(&self.lab, network);
        if !found.altnames.contains(&mark) {
            wire.add_altname(index, &mark).context(|| format!("cannot mark uplink `{link}`"))?;
        }
        let port = Port { bridge: bridge.clone(), attach: attach.clone(), isolated: false };
        self.plug(index, &port).await?;
        self.move_addresses(link, bridge, None).await
    }

    /// Brings an uplink to what is wanted; the link is the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_uplink(&self, network: &str, wanted: &Uplink, found: &Uplink) -> Result<()> {
        if wanted.bridge != found.bridge {
            return self.join_uplink(network, wanted).await;
        }
        let index = self.require(&Place::Host, &wanted.link).await?;
        self.set_port_vlans(index, &wanted.attach, &found.attach).await?;
        // What a run that was cut off did not get to, or somebody set there since.
        self.move_addresses(&wanted.link, &wanted.bridge, None).await
    }

    /// Undoes [`Links::join_uplink`]. Fine when one of the two is gone, or when it was never done: a link without our
    /// mark is left alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn leave_uplink(&self, network: &str, link: &str, bridge: &str) -> Result<()> {
        // One that is found unplugged, since a run was cut off in here, has left its addresses on its network's bridge.
        let usual = names::link(&self.lab, "bridge", network);
        let bridge = if bridge.is_empty() { &usual } else { bridge };
        let state = self.observe(&Place::Host).await?;
        let mark = altname(&self.lab, network);
        let Some(found) = state.link(link).filter(|found| found.altnames.contains(&mark)) else {
            return Ok(());
        };
        let ours = state.name(found.controller) == Some(bridge);
        if ours {
            self.unplug(found.index).await?;
        }
        if let Some(found) = state.link(bridge) {
            self.move_addresses(bridge, link, found.mac).await?;
        }
        let wire = self.at(&Place::Host)?;
        let removed = wire.delete_altname(found.index, &mark);
        removed.context(|| format!("cannot take the mark off uplink `{link}`"))
    }

    /// Gives uplinks back what a link holds of theirs, before it goes without being known as their bridge: one whose alias
    /// somebody changed, or that was never set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn free_uplinks(&self, bridge: &str) -> Result<()> {
        let state = self.observe(&Place::Host).await?;
        for link in state.links.values() {
            let networks = link.altnames.iter().filter_map(|mark| read_altname(&self.lab, mark));
            for network in networks {
                let theirs = state.name(link.controller) == Some(bridge)
                    || bridge == names::link(&self.lab, "bridge", &network);
                if theirs {
                    self.leave_uplink(&network, &link.name, bridge).await?;
                }
            }
        }
        Ok(())
    }

    /// Refuses while a network's bridge has addresses that belong to its uplink: they would go with it.
    ///
    /// # Errors
    /// When they have not gone back yet.
    pub async fn refuse_to_lose(&self, network: &str, bridge: &str) -> Result<()> {
        if self.look_up(&Place::Host, bridge).await?.is_none() {
            return Ok(()); // gone with the lab's other links
        }
        let state = self.observe(&Place::Host).await?;
        let mark = altname(&self.lab, network);
        let uplink = state.links.values().find(|link| link.altnames.contains(&mark));
        match (uplink, state.link(bridge)) {
            (Some(uplink), Some(found)) if !found.addresses.is_empty() => Err(Error::failed(format!(
                "bridge `{bridge}` still holds the addresses of uplink `{}`",
                uplink.name
            ))),
            _ => Ok(()),
        }
    }

    /// First everything is set up there, then it is taken away here: the host keeps its addresses throughout. What
    /// the kernel made from an advertised prefix and the MAC address `own` stays behind.
    async fn move_addresses(&self, from_name: &str, to_name: &str, own: Option<Mac>) -> Result<()> {
        let from = self.require(&Place::Host, from_name).await?;
        let to = self.require(&Place::Host, to_name).await?;
        let wire = self.at(&Place::Host)?;
        let routes = self.routes_through(from).await?;
        let failed = || format!("cannot hand the addresses of `{from_name}` over to `{to_name}`");
        let mut addresses = self.addresses_of(&Place::Host, from).await?;
        addresses.retain(|message| {
            let movable =
                |ip: IpAddr| !is_link_local(ip) && !own.is_some_and(|mac| is_made_from(ip, mac, message));
            address_ip(&message.attributes).is_some_and(movable)
        });
        for message in &addresses {
            self.add_address(moved(message, to, from_name, true), failed).await?;
        }
        for mut route in without_shadowed(routes) {
            set_output(&mut route, to);
            wire.replace_route(route).context(failed)?;
        }
        for message in addresses.iter().filter(|message| has_detection(message)) {
            // It was added without duplicate detection, to be usable at once. That is over; the flag goes again.
            self.add_address(moved(message, to, from_name, false), failed).await?;
        }
        for message in addresses {
            match wire.delete_address(message) {
                // The kernel removes a subnet's further addresses together with its first.
                Err(e) if e.is(libc::EADDRNOTAVAIL) => {}
                other => other.context(failed)?,
            }
        }
        Ok(())
    }

    async fn add_address(&self, message: AddressMessage, failed: impl FnOnce() -> String) -> Result<()> {
        let wire = self.at(&Place::Host)?;
        wire.replace_address(message).context(failed)
    }

    /// Routes through a link; those of the kernel itself follow the addresses. On-link routes first, since others
    /// may lead through them.
    async fn routes_through(&self, index: u32) -> Result<Vec<RouteMessage>> {
        use netlink_packet_route::route::RouteAttribute;
        let wire = self.at(&Place::Host)?;
        let mut out = wire.routes(AddressFamily::Unspec).context(|| "cannot list routes".into())?;
        out.retain(|route| {
            let ip = matches!(route.header.address_family, AddressFamily::Inet | AddressFamily::Inet6);
            let through = route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(i) if i == &index));
            let unicast = route.header.kind == RouteType::Unicast;
            let cached = route.header.flags.contains(RouteFlags::Cloned);
            ip && through && unicast && !cached && route.header.protocol != RouteProtocol::Kernel
        });
        out.sort_by_key(|route| route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_))));
        Ok(out)
    }
}

/// Leaves an advertised default route out where there is a static one: it would take the place of one with the same
/// metric, and comes again with the next advertisement.
fn without_shadowed(routes: Vec<RouteMessage>) -> Vec<RouteMessage> {
    let is_default = |route: &RouteMessage| route.header.destination_prefix_length == 0;
    let advertised = |route: &RouteMessage| route.header.protocol == RouteProtocol::Ra;
    let families: Vec<_> = routes
        .iter()
        .filter(|route| is_default(route) && !advertised(route))
        .map(|route| route.header.address_family)
        .collect();
    let shadowed = |route: &RouteMessage| {
        is_default(route) && advertised(route) && families.contains(&route.header.address_family)
    };
    routes.into_iter().filter(|route| !shadowed(route)).collect()
}

/// Whether the kernel made an address from an advertised prefix and this MAC address (RFC 4291, appendix A).
fn is_made_from(ip: IpAddr, mac: Mac, message: &AddressMessage) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let [a, b, c, d, e, f] = mac.0;
    flags(message).contains(AddressFlags::Managetempaddr)
        && ip.octets()[8..] == [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// The message that sets an address on link `to`, as it is set on link `from`.
fn moved(message: &AddressMessage, to: u32, from: &str, without_detection: bool) -> AddressMessage {
    let mut flags = flags(message) & KEPT;
    if without_detection && has_detection(message) {
        flags |= AddressFlags::Nodad;
    }
    let mut moved = message.clone();
    moved.header.index = to;
    moved.header.flags =
        AddressHeaderFlags::from_bits_truncate(u8::try_from(flags.bits() & 0xff).unwrap_or(0));
    // Without a label the address gets the name of its link, which is what a label is by default.
    moved.attributes.retain(|attribute| match attribute {
        AddressAttribute::Flags(_) => false,
        AddressAttribute::Label(label) => label != from,
        _ => true,
    });
    moved.attributes.push(AddressAttribute::Flags(flags));
    moved
}

/// Flags that were asked for; the others say what became of an address.
const KEPT: AddressFlags = AddressFlags::Nodad
    .union(AddressFlags::Homeaddress)
    .union(AddressFlags::Managetempaddr)
    .union(AddressFlags::Noprefixroute)
    .union(AddressFlags::Mcautojoin);

fn flags(message: &AddressMessage) -> AddressFlags {
    let given = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    given.unwrap_or(AddressFlags::from_bits_truncate(u32::from(message.header.flags.bits())))
}

/// Whether the kernel would ask first whether somebody else has the address: IPv6, unless it was told not to.
fn has_detection(message: &AddressMessage) -> bool {
    message.header.family == AddressFamily::Inet6 && !flags(message).contains(AddressFlags::Nodad)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Names that could be uplinks, or carry macvlan interfaces.
pub(super) fn physical(state: &PlaceState) -> Vec<&str> {
    let mut names: Vec<&str> = state
        .links
        .values()
        .map(|l| l.name.as_str())
        .filter(|n| *n != "lo" && !n.starts_with("nl"))
        .collect();
    names.sort_unstable();
    names
}

fn address_ip(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None })
        .or_else(|| {
            attributes
                .iter()
                .find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None })
        })
}

/// Makes a route that was found into one to be added on link `index`.
fn set_output(route: &mut RouteMessage, index: u32) {
    use netlink_packet_route::route::RouteAttribute;
    let mut expires = 0;
    for attribute in &mut route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => *oif = index,
            RouteAttribute::CacheInfo(info) => expires = info.expires,
            _ => {}
        }
    }
    route.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
    // What became of a route (no carrier, offloaded) is not for us to say.
    route.header.flags &= RouteFlags::Onlink;
    // An advertised route ends some day. Found in clock ticks, of which user space sees 100 a second, set in seconds.
    if let (AddressFamily::Inet6, 1..=0x7fff_ffff) = (route.header.address_family, expires) {
        route.attributes.push(RouteAttribute::Expires(expires / 100));
    }
}
