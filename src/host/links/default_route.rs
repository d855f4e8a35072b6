//! Default routes that are nobody's wish but a measurement's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteType;
use rtnetlink::RouteMessageBuilder;

use super::Links;
use crate::error::{Context, Result};
use crate::resource::Place;

impl Links {
    /// Whether there is a default route of this family.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn has_default_route(&self, place: &Place, v4: bool) -> Result<bool> {
        let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let routes = self.at(place)?.routes(family).context(|| "cannot list the routes".into())?;
        let default = |header: &netlink_packet_route::route::RouteHeader| {
            header.destination_prefix_length == 0 && header.kind == RouteType::Unicast
        };
        Ok(routes.iter().any(|route| default(&route.header)))
    }

    /// Adds a default route, of IPv4 or of IPv6, by this link: through `via`, or to everybody as if they were on the link.
    ///
    /// # Errors
    /// When the link does not exist or the kernel refuses.
    pub async fn add_default_route(
        &self,
        place: &Place,
        link: &str,
        v4: bool,
        via: Option<IpAddr>,
    ) -> Result<()> {
        let index = self.require(place, link).await?;
        let route = match (v4, via) {
            (true, Some(IpAddr::V4(via))) => {
                RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).gateway(via).build()
            }
            (true, _) => RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).build(),
            (false, Some(IpAddr::V6(via))) => {
                RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(via).build()
            }
            (false, _) => RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).build(),
        };
        let added = self.at(place)?.add_route(route);
        added.context(|| format!("cannot add a default route by `{link}`"))
    }
}
