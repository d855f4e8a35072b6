//! VXLAN tunnels: ports of bridges on the host whose packets travel in another network stack.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::link::{InfoKind, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use super::{LinkKind, Links, PlaceState};
use crate::error::{Context, Result};
use crate::host::netns;
use crate::resource::{Id, Place, Vxlan, names};

/// The UDP port that RFC 7348 assigns; the kernel's own default is an older one.
pub const VXLAN_PORT: u16 = 4789;

impl Links {
    /// Makes a tunnel: asked for in the underlay, where its socket will be, and born on the host by the same request.
    ///
    /// # Errors
    /// When the underlay is missing or the kernel refuses.
    pub async fn create_vxlan(&self, id: &Id, vxlan: &Vxlan) -> Result<()> {
        let host = netns::host()?;
        let mut message = LinkVxlan::new(&vxlan.link, vxlan.vni)
            .port(VXLAN_PORT)
            .mtu(vxlan.mtu)
            .link_group(names::group(&self.lab));
        if vxlan.underlay != Place::Host {
            message = message.setns_by_fd(host.as_raw_fd());
        }
        self.add(&vxlan.underlay, &vxlan.link, ends(message, vxlan)).await?;
        let index = self.adopt(id, &Place::Host, &vxlan.link, false).await?;
        self.plug(index, &vxlan.port).await?;
        self.set_up(&Place::Host, index, true).await
    }

    /// Brings a tunnel to what is wanted; underlay, VNI and address family are the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_vxlan(&self, wanted: &Vxlan, found: &Vxlan) -> Result<()> {
        let index = self.require(&Place::Host, &wanted.link).await?;
        if (wanted.local, wanted.remote) != (found.local, found.remote) {
            let message = LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan).index(index);
            let wire = self.at(&Place::Host)?;
            let changed = wire.change_link(ends(message, wanted));
            changed.context(|| format!("cannot change the ends of tunnel `{}`", wanted.link))?;
        }
        if wanted.mtu != found.mtu {
            self.set_mtu(&Place::Host, index, wanted.mtu).await?;
        }
        let found = Some(&found.port).filter(|port| !port.bridge.is_empty());
        self.change_port(index, Some(&wanted.port), found).await?;
        self.keep(&Place::Host, index).await
    }

    /// The namespaces by the numbers that the host's tunnels show for them, out of those known. Costs nothing where
    /// there is no tunnel.
    pub(crate) fn underlays(&self, places: &BTreeMap<Place, PlaceState>) -> Result<BTreeMap<i32, Place>> {
        let mut out = BTreeMap::new();
        let host = places.get(&Place::Host);
        let is_tunnel = |kind: &LinkKind| matches!(kind, LinkKind::Vxlan { .. });
        if !host.is_some_and(|host| host.links.values().any(|link| is_tunnel(&link.kind))) {
            return Ok(out);
        }
        let wire = self.at(&Place::Host)?;
        for place in places.keys() {
            let Place::Netns(name) = place else { continue };
            let Ok(namespace) = netns::open(name) else { continue };
            // Without a number it is nobody's underlay.
            if let Ok(Some(number)) = wire.number_of(namespace.as_fd()) {
                out.insert(number, place.clone());
            }
        }
        Ok(out)
    }
}

fn ends(message: LinkMessageBuilder<LinkVxlan>, vxlan: &Vxlan) -> LinkMessage {
    let message = match vxlan.local {
        IpAddr::V4(ip) => message.local(ip),
        IpAddr::V6(ip) => message.local6(ip),
    };
    match vxlan.remote {
        IpAddr::V4(ip) => message.remote(ip),
        IpAddr::V6(ip) => message.remote6(ip),
    }
    .build()
}
