//! Changing links in place: only what differs.

use ipnetwork::IpNetwork;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoKind, LinkAttribute,
};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use super::create::{admit_loopback, take_part};
use super::mend::allow_ipv6;
use super::wire::Wire;
use super::{Links, wire};
use crate::error::{Context, Error, Result};
use crate::host::netns;
use crate::resource::{Bridge, Place, Port, Routes, Tap, Veth, VethEnd};
use crate::topology::Route;

/// A kernel setting that is put back however the work ends that it was changed for: through the file that is open already,
/// for which no namespace need be entered again.
struct PutBack {
    file: fs::File,
    before: String,
}

impl Drop for PutBack {
    fn drop(&mut self) {
        let put = || self.file.write_at(self.before.as_bytes(), 0);
        if let Err(e) = put().or_else(|_| put()) {
            tracing::warn!("cannot put promote_secondaries back to {}: {e}", self.before.trim());
        }
    }
}

/// Every namespace's loopback is its first link (`LOOPBACK_IFINDEX`, net/net_namespace.h).
const LOOPBACK: u32 = 1;

impl Links {
    /// Brings a bridge from what was found to what is wanted. Its kernel name is the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_bridge(&self, wanted: &Bridge, found: &Bridge) -> Result<()> {
        let index = self.require(&Place::Host, &found.link).await?;
        if wanted.link != found.link {
            self.rename(index, &wanted.link).await?;
        }
        self.make_usual(index).await?;
        allow_ipv6(&Place::Host, &wanted.link)?;
        let wire = self.at(&Place::Host)?;
        if (wanted.mac, wanted.mtu) != (found.mac, found.mtu) {
            self.set_mac_and_mtu(&Place::Host, index, wanted.mac.0, wanted.mtu).await?;
        }
        if (wanted.stp, wanted.vlan_filtering) != (found.stp, found.vlan_filtering) {
            let stp = if wanted.stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
            // Without the name, which older kernels (6.1) refuse to set on a link that is up, even to what it is.
            let mut message = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge)
                .index(index)
                .stp_state(stp);
            if wanted.vlan_filtering {
                message = message.vlan_filtering(true).vlan_default_pvid(0);
            } else if found.vlan_filtering {
                message = message.vlan_filtering(false);
            }
            // A change of link info goes through RTM_NEWLINK without NLM_F_CREATE.
            wire.change_link(message.build())
                .context(|| format!("cannot change bridge `{}`", wanted.link))?;
        }
        self.set_own_vlans(index, wanted, Some(found)).await?;
        if wanted.host_leg != found.host_leg {
            self.set_host_leg(index, wanted.host_leg).await?;
        }
        take_part(&wire, index, &wanted.link, wanted.host_leg, found.host_leg)?;
        if !wanted.uplinked || !found.uplinked {
            // Those of an uplink come with it.
            let ours: &[IpNetwork] = if wanted.uplinked { &[] } else { &wanted.addresses };
            self.set_addresses(&Place::Host, index, ours, &found.addresses).await?;
        }
        self.keep(&Place::Host, index).await
    }

    /// An IPv6 link-local address is made when a link comes up, so it is taken down for a moment.
    async fn set_host_leg(&self, index: u32, host_leg: bool) -> Result<()> {
        let mode = if host_leg { In6AddrGenMode::Eui64 } else { In6AddrGenMode::None };
        self.set_up(&Place::Host, index, false).await?;
        let message =
            LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![
                AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]),
            ]));
        let wire = self.at(&Place::Host)?;
        wire.set_link(message.build()).context(|| "cannot change a bridge's host leg".into())
    }

    /// Brings both ends of a veth pair to what is wanted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_veth(&self, wanted: &Veth, found: &Veth) -> Result<()> {
        for (wanted, found) in wanted.ends.iter().zip(&found.ends) {
            self.change_end(wanted, found).await?;
        }
        Ok(())
    }

    async fn change_end(&self, wanted: &VethEnd, found: &VethEnd) -> Result<()> {
        let index = self.require(&wanted.place, &wanted.link).await?;
        allow_ipv6(&wanted.place, &wanted.link)?;
        if (wanted.mac, wanted.mtu) != (found.mac, found.mtu) {
            self.set_mac_and_mtu(&wanted.place, index, wanted.mac.0, wanted.mtu).await?;
        }
        self.change_port(index, wanted.port.as_ref(), found.port.as_ref()).await?;
        self.set_addresses(&wanted.place, index, &wanted.addresses, &found.addresses).await?;
        if wanted.route_localnet != found.route_localnet {
            admit_loopback(&wanted.link, wanted.route_localnet)?;
        }
        self.keep(&wanted.place, index).await
    }

    /// Brings a tap to what is wanted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_tap(&self, wanted: &Tap, found: &Tap) -> Result<()> {
        let index = self.require(&Place::Host, &wanted.link).await?;
        if wanted.mtu != found.mtu {
            self.set_mtu(&Place::Host, index, wanted.mtu).await?;
        }
        let found = Some(&found.port).filter(|port| !port.bridge.is_empty());
        self.change_port(index, Some(&wanted.port), found).await?;
        self.keep(&Place::Host, index).await
    }

    pub(super) async fn change_port(
        &self,
        index: u32,
        wanted: Option<&Port>,
        found: Option<&Port>,
    ) -> Result<()> {
        match (wanted, found) {
            (Some(wanted), Some(found)) if wanted.bridge == found.bridge => {
                self.make_usual(index).await?;
                if wanted.isolated != found.isolated {
                    self.set_isolated(index, wanted.isolated).await?;
                }
                self.set_port_vlans(index, &wanted.attach, &found.attach).await
            }
            (Some(wanted), _) => {
                // Whoever calls brings it up again: until it is isolated it shall pass nothing.
                if wanted.isolated {
                    self.set_up(&Place::Host, index, false).await?;
                }
                self.plug(index, wanted).await
            }
            (None, Some(_)) => self.unplug(index).await,
            (None, None) => Ok(()),
        }
    }

    pub(super) async fn unplug(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).nocontroller().build();
        let wire = self.at(&Place::Host)?;
        wire.set_link(message).context(|| "cannot take a port off its bridge".into())
    }

    pub(super) async fn set_mtu(&self, place: &Place, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let wire = self.at(place)?;
        wire.set_link(message).context(|| "cannot set the MTU of a link".into())
    }

    pub(super) async fn set_mac_and_mtu(
        &self,
        place: &Place,
        index: u32,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).address(mac.to_vec()).mtu(mtu).build();
        let wire = self.at(place)?;
        wire.set_link(message).context(|| "cannot set MAC address and MTU of a link".into())
    }

    /// Brings a link up or down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_up(&self, place: &Place, index: u32, up: bool) -> Result<()> {
        set_up(&*self.at(place)?, index, up)
    }

    /// Brings loopback up in a namespace that was just made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn raise_loopback(&self, place: &Place) -> Result<()> {
        self.set_up(place, LOOPBACK, true).await
    }

    /// Brings a link's static addresses from `found` to `wanted`.
    pub(super) async fn set_addresses(
        &self,
        place: &Place,
        index: u32,
        wanted: &[IpNetwork],
        found: &[IpNetwork],
    ) -> Result<()> {
        let new: Vec<IpNetwork> = wanted.iter().filter(|a| !found.contains(a)).copied().collect();
        set_addresses(&*self.at(place)?, index, &new)?;
        let obsolete: Vec<IpNetwork> = found.iter().filter(|a| !wanted.contains(a)).copied().collect();
        let shares = |old: &IpNetwork| old.is_ipv4() && wanted.iter().any(|new| old.contains(new.ip()));
        if !obsolete.iter().any(shares) {
            return self.remove_addresses(place, index, &obsolete).await;
        }
        // With a subnet's first address the kernel would remove the others, and the routes by them.
        let _promotes = self.promote_secondaries(place, index).await?;
        self.remove_addresses(place, index, &obsolete).await
    }

    async fn remove_addresses(&self, place: &Place, index: u32, addresses: &[IpNetwork]) -> Result<()> {
        for address in addresses {
            self.remove_address(place, index, *address).await?;
        }
        Ok(())
    }

    /// Has another address of a subnet take the place of its first one, for as long as the result lives.
    async fn promote_secondaries(&self, place: &Place, index: u32) -> Result<PutBack> {
        let state = self.observe(place).await?;
        let link = state.name(Some(index)).unwrap_or_default().to_owned();
        netns::within(place, move || {
            let path = format!("/proc/sys/net/ipv4/conf/{link}/promote_secondaries");
            let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
            let before = fs::read_to_string(&path)?;
            file.write_at(b"1", 0)?;
            Ok(PutBack { file, before })
        })?
        .map_err(|e: std::io::Error| Error::failed("cannot keep a link's further addresses").caused_by(e))
    }

    /// Sets one address that lives as long as its lease (seconds), on a link by name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn lease_address(
        &self,
        place: &Place,
        link: &str,
        address: IpNetwork,
        lease: u32,
    ) -> Result<()> {
        let index = self.require(place, link).await?;
        let wire = self.at(place)?;
        let mut message = wire::address(index, address.ip(), address.prefix());
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_preferred = lease;
        lifetime.ifa_valid = lease;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        wire.replace_address(message).context(|| format!("cannot set the leased address {address}"))
    }

    /// Takes the leased (not the static) IPv4 addresses off a link, except `keep`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn drop_leases(&self, place: &Place, link: &str, keep: Option<IpNetwork>) -> Result<()> {
        let state = self.observe(place).await?;
        let Some(link) = state.link(link) else { return Ok(()) };
        for address in link.dynamic.iter().filter(|a| a.is_ipv4() && Some(**a) != keep) {
            self.remove_address(place, link.index, *address).await?;
        }
        Ok(())
    }

    async fn remove_address(&self, place: &Place, index: u32, address: IpNetwork) -> Result<()> {
        let same = |message: &AddressMessage| {
            message.header.prefix_len == address.prefix()
                && message
                    .attributes
                    .iter()
                    .any(|a| matches!(a, AddressAttribute::Address(ip) | AddressAttribute::Local(ip) if *ip == address.ip()))
        };
        let Some(message) = self.addresses_of(place, index).await?.into_iter().find(same) else {
            return Ok(());
        };
        let removed = self.at(place)?.delete_address(message);
        removed.context(|| format!("cannot remove address {address}"))
    }

    /// A link's addresses as the kernel tells them.
    pub(super) async fn addresses_of(&self, place: &Place, index: u32) -> Result<Vec<AddressMessage>> {
        let mut found = self.at(place)?.addresses().context(|| "cannot list addresses".into())?;
        found.retain(|message| message.header.index == index);
        Ok(found)
    }

    /// Brings our routes of a place from `found` to `wanted`.
    ///
    /// # Errors
    /// When the kernel refuses, for one because no link leads to the next hop.
    pub async fn change_routes(&self, wanted: &Routes, found: &[Route]) -> Result<()> {
        let wire = self.at(&wanted.place)?;
        for route in wanted.routes.iter().filter(|r| !found.contains(r)) {
            wire.replace_route(route_message(route))
                .context(|| format!("cannot set the route to {} via {}", route.to, route.via))?;
        }
        for route in found.iter().filter(|r| !wanted.routes.contains(r)) {
            let same_destination = wanted.routes.iter().any(|r| r.to == route.to);
            if same_destination && route.to.is_ipv4() {
                continue; // replaced above
            }
            match wire.delete_route(route_message(route)) {
                // Gone already: replaced above, or with its link or address.
                Err(e) if e.is(libc::ESRCH) => {}
                other => {
                    other.context(|| format!("cannot remove the route to {} via {}", route.to, route.via))?
                }
            }
        }
        Ok(())
    }
}

/// Brings a link up or down.
pub(super) fn set_up(wire: &Wire, index: u32, up: bool) -> Result<()> {
    let message = LinkUnspec::new_with_index(index);
    let message = if up { message.up() } else { message.down() };
    wire.set_link(message.build()).context(|| "cannot bring a link up or down".into())
}

/// Gives a link addresses. IPv6 ones skip duplicate detection: the file is checked for duplicates, and a lab should not
/// wait a second for each.
pub(super) fn set_addresses(wire: &Wire, index: u32, addresses: &[IpNetwork]) -> Result<()> {
    for address in addresses {
        let mut message = wire::address(index, address.ip(), address.prefix());
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        wire.add_address(message).context(|| format!("cannot set address {address}"))?;
    }
    Ok(())
}

fn route_message(route: &Route) -> RouteMessage {
    let protocol = RouteProtocol::from(super::ROUTE_PROTOCOL);
    match (route.to, route.via) {
        (IpNetwork::V4(to), IpAddr::V4(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix())
            .gateway(via)
            .protocol(protocol)
            .build(),
        (to, via) => {
            let network = match to.network() {
                IpAddr::V6(ip) => ip,
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            };
            let gateway = match via {
                IpAddr::V6(ip) => ip,
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            };
            RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(network, to.prefix())
                .gateway(gateway)
                .protocol(protocol)
                .build()
        }
    }
}
