//! Uplinks of `bridged` networks: links of the host, not ours, that become ports for a while.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::route::{RouteFlags, RouteMessage, RouteProtocol};
use rtnetlink::RouteMessageBuilder;

use super::{Links, PlaceState};
use crate::error::{Context, Error, Result};
use crate::resource::{Place, Port};
use crate::topology::Attach;

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

/// What an uplink hands over to its bridge, and gets back.
impl Links {
    /// Makes a link of the host, not ours, a port of `bridge` and moves its addresses and default routes there, so
    /// that the host stays reachable.
    ///
    /// # Errors
    /// When the link does not exist, is a port already, or the kernel refuses.
    pub async fn join_uplink(&self, network: &str, link: &str, bridge: &str) -> Result<()> {
        let state = self.observe(&Place::Host).await?;
        let Some(found) = state.link(link) else {
            return Err(Error::host(format!(
                "network `{network}` wants uplink `{link}`, which does not exist"
            ))
            .hint(format!("links of this host: {}", physical(&state).join(", "))));
        };
        if let Some(other) = state.name(found.controller).filter(|name| *name != bridge) {
            return Err(Error::host(format!("uplink `{link}` is a port of `{other}` already"))
                .hint("name another uplink, or take it off that bridge"));
        }
        let index = found.index;
        let handle = self.at(&Place::Host).await?;
        let mark = altname(&self.lab, network);
        if !found.altnames.contains(&mark) {
            handle
                .link()
                .property_add(index)
                .alt_ifname(&[&mark])
                .execute()
                .await
                .context(|| format!("cannot mark uplink `{link}`"))?;
        }
        self.plug(index, &Port { bridge: bridge.to_owned(), attach: Attach::Plain }).await?;
        self.move_addresses(link, bridge).await
    }

    /// Undoes [`Links::join_uplink`]. Fine when one of the two is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn leave_uplink(&self, network: &str, link: &str, bridge: &str) -> Result<()> {
        let Some(index) = self.index(&Place::Host, link).await? else { return Ok(()) };
        self.unplug(index).await?;
        if self.index(&Place::Host, bridge).await?.is_some() {
            self.move_addresses(bridge, link).await?;
        }
        let handle = self.at(&Place::Host).await?;
        handle
            .link()
            .property_del(index)
            .alt_ifname(&[&altname(&self.lab, network)])
            .execute()
            .await
            .context(|| format!("cannot take the mark off uplink `{link}`"))
    }

    async fn move_addresses(&self, from: &str, to: &str) -> Result<()> {
        let from = self.require(&Place::Host, from).await?;
        let to = self.require(&Place::Host, to).await?;
        let handle = self.at(&Place::Host).await?;
        let routes = self.routes_through(from).await?;
        let failed = || "cannot hand the addresses of an uplink over".to_owned();
        let mut addresses = Vec::new();
        let mut found = handle.address().get().set_link_index_filter(from).execute();
        while let Some(message) = found.try_next().await.context(failed)? {
            addresses.push(message);
        }
        for message in addresses {
            let Some(ip) = address_ip(&message.attributes) else { continue };
            let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            if link_local {
                continue;
            }
            handle.address().del(message.clone()).execute().await.context(failed)?;
            let mut request = handle.address().add(to, ip, message.header.prefix_len).replace();
            let mut moved = message;
            moved.header.index = to;
            moved.header.flags |= AddressHeaderFlags::Nodad;
            moved
                .attributes
                .retain(|a| !matches!(a, AddressAttribute::Flags(_) | AddressAttribute::Label(_)));
            moved.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            *request.message_mut() = moved;
            request.execute().await.context(failed)?;
        }
        for mut route in routes {
            set_output(&mut route, to);
            handle.route().add(route).replace().execute().await.context(failed)?;
        }
        Ok(())
    }

    /// Routes with a gateway through a link; those of the kernel itself follow the addresses.
    async fn routes_through(&self, index: u32) -> Result<Vec<RouteMessage>> {
        use netlink_packet_route::route::RouteAttribute;
        let handle = self.at(&Place::Host).await?;
        let mut out = Vec::new();
        let filters =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for filter in filters {
            let mut routes = handle.route().get(filter).execute();
            while let Some(route) = routes.try_next().await.context(|| "cannot list routes".into())? {
                let through =
                    route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(i) if *i == index));
                let gateway = route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_)));
                if through && gateway && route.header.protocol != RouteProtocol::Kernel {
                    out.push(route);
                }
            }
        }
        Ok(out)
    }
}

/// Names that could be uplinks.
fn physical(state: &PlaceState) -> Vec<&str> {
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

fn set_output(route: &mut RouteMessage, index: u32) {
    use netlink_packet_route::route::RouteAttribute;
    for attribute in &mut route.attributes {
        if let RouteAttribute::Oif(oif) = attribute {
            *oif = index;
        }
    }
    route.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
    // What the kernel says of the route's state it does not take back: a bridge without ports is down, and its routes too.
    route.header.flags &= RouteFlags::Onlink;
}
