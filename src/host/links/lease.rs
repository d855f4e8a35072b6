//! Routes that a DHCP server gave. They carry the kernel's own protocol number for DHCP, never ours, so that no plan
//! takes them for a static route.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use netlink_packet_route::AddressFamily;
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
        let wire = self.at(place)?;
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
            let set = wire.replace_route(route);
            set.context(|| format!("cannot set the leased route to {to} via {via}"))?;
        }
        let found = wire.routes(AddressFamily::Inet).context(|| "cannot list routes".into())?;
        let mut stale = Vec::new();
        for route in found {
            let leased = route.header.protocol == RouteProtocol::Dhcp
                && route.attributes.contains(&RouteAttribute::Oif(index));
            if leased && !kept.contains(&destination(&route)) {
                stale.push(route);
            }
        }
        for route in stale {
            let removed = wire.delete_route(route);
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
