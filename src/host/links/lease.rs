//! Routes that a DHCP server gave. They carry the kernel's own protocol number for DHCP, never ours, so that no plan
//! takes them for a static route.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use ipnetwork::Ipv4Network;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::RouteMessageBuilder;

use super::Links;
use crate::error::{Context, Result};
use crate::resource::Place;

/// Added to a link's index for the metric of its leased routes: static routes (metric 0) win, and of two links with a
/// default route the first one.
const METRIC: u32 = 1000;

impl Links {
    /// Brings the leased IPv4 routes through a link to exactly `wanted`: destination and next hop, where an
    /// unspecified next hop means that the destination is on the link itself.
    ///
    /// # Errors
    /// When the link is gone or the kernel refuses, for one because no address of the link reaches a next hop.
    pub async fn lease_routes(
        &self,
        place: &Place,
        link: &str,
        wanted: &[(Ipv4Network, Ipv4Addr)],
    ) -> Result<()> {
        let index = self.require(place, link).await?;
        let handle = self.at(place).await?;
        let mut kept = Vec::new();
        for (to, via) in wanted {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.network(), to.prefix())
                .output_interface(index)
                .priority(METRIC + index)
                .protocol(RouteProtocol::Dhcp);
            if via.is_unspecified() {
                route = route.scope(netlink_packet_route::route::RouteScope::Link);
            } else {
                route = route.gateway(*via);
            }
            let route = route.build();
            kept.push(destination(&route));
            let set = handle.route().add(route).replace().execute().await;
            set.context(|| format!("cannot set the leased route to {to} via {via}"))?;
        }
        let mut found = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let mut stale = Vec::new();
        while let Some(route) = found.try_next().await.context(|| "cannot list routes".into())? {
            let leased = route.header.protocol == RouteProtocol::Dhcp
                && route.attributes.contains(&RouteAttribute::Oif(index));
            if leased && !kept.contains(&destination(&route)) {
                stale.push(route);
            }
        }
        for route in stale {
            let removed = handle.route().del(route).execute().await;
            removed.context(|| format!("cannot remove a leased route of `{link}`"))?;
        }
        Ok(())
    }
}

/// Destination of a route; a dump leaves the unspecified one of a default route out.
fn destination(route: &RouteMessage) -> (u8, Option<RouteAttribute>) {
    let length = route.header.destination_prefix_length;
    let given = route.attributes.iter().find(|a| matches!(a, RouteAttribute::Destination(_)));
    (length, given.filter(|_| length > 0).cloned())
}
