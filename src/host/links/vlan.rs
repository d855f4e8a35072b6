//! VLAN interfaces: tagged legs of the host, guests' NICs on a trunk, and tagged uplinks.

use netlink_packet_route::link::{LinkMessage, VlanProtocol as KernelProtocol};
use rtnetlink::LinkVlan;

use super::mend::allow_ipv6;
use super::uplink::physical;
use super::{LinkKind, LinkState, Links, create};
use crate::error::{Error, Result};
use crate::resource::{Id, Place, Vlan, VlanProtocol, names};

impl Links {
    /// Makes a VLAN interface.
    ///
    /// # Errors
    /// Exit 3 when the kernel has no 802.1Q, or the link below is missing or down on the host; else when the kernel
    /// refuses.
    pub async fn create_vlan(&self, id: &Id, vlan: &Vlan) -> Result<()> {
        let parent = self.vlan_parent(vlan).await?;
        let message = message(vlan, parent, names::group(&self.lab));
        create::before_birth(&vlan.place, vlan.advertised)?;
        self.add(&vlan.place, &vlan.link, message).await?;
        let index = self.adopt(id, &vlan.place, &vlan.link, has_leg(vlan)).await?;
        if vlan.place == Place::Host {
            create::take_part(&*self.at(&vlan.place)?, index, &vlan.link, has_leg(vlan), true)?;
        }
        if let Some(port) = &vlan.port {
            self.plug(index, port).await?;
        }
        self.set_addresses(&vlan.place, index, &vlan.addresses, &[]).await?;
        self.set_up(&vlan.place, index, true).await
    }

    /// Brings a VLAN interface to what is wanted; parent, VID and protocol are the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_vlan(&self, wanted: &Vlan, found: &Vlan) -> Result<()> {
        let index = self.require(&wanted.place, &wanted.link).await?;
        allow_ipv6(&wanted.place, &wanted.link)?;
        if wanted.mtu != found.mtu {
            self.set_mtu(&wanted.place, index, wanted.mtu).await?;
        }
        if wanted.place == Place::Host {
            create::take_part(&*self.at(&wanted.place)?, index, &wanted.link, has_leg(wanted), true)?;
        }
        self.change_port(index, wanted.port.as_ref(), found.port.as_ref()).await?;
        self.set_addresses(&wanted.place, index, &wanted.addresses, &found.addresses).await?;
        self.keep(&wanted.place, index).await
    }

    /// Index of the link below. It may be none of ours, so what is wrong with it is said in the user's terms.
    async fn vlan_parent(&self, vlan: &Vlan) -> Result<u32> {
        let name = &vlan.parent;
        if vlan.place != Place::Host {
            return self.require(&vlan.place, name).await;
        }
        let state = self.observe(&Place::Host).await?;
        let Some(parent) = state.link(name) else {
            return Err(Error::host(format!("there is no link `{name}` to put VLAN {} on", vlan.vid))
                .hint(format!("links of this host: {}", physical(&state).join(", "))));
        };
        if !parent.up {
            return Err(Error::host(format!("`{name}`, which shall carry VLAN {}, is down", vlan.vid))
                .hint(format!("bring it up: `ip link set {name} up`")));
        }
        let tag = LinkKind::Vlan { vid: vlan.vid, protocol: vlan.protocol };
        let same = |link: &&LinkState| link.lower == Some(parent.index) && link.kind == tag;
        if let Some(taken) = state.links.values().find(same) {
            return Err(Error::host(format!("VLAN {} of `{name}` is in use: `{}`", vlan.vid, taken.name))
                .hint(
                    "the kernel has one interface for a VLAN of a link; remove that one, or use another VLAN",
                ));
        }
        Ok(parent.index)
    }
}

/// Whether the place itself takes part: a guest always does, the host where it has an address. A port, or a link that
/// only carries further VLANs, is none of the host's legs.
fn has_leg(vlan: &Vlan) -> bool {
    vlan.place != Place::Host || (vlan.port.is_none() && !vlan.addresses.is_empty())
}

fn message(vlan: &Vlan, parent: u32, group: u32) -> LinkMessage {
    let protocol = match vlan.protocol {
        VlanProtocol::Dot1q => KernelProtocol::Ieee8021Q,
        VlanProtocol::Dot1ad => KernelProtocol::Ieee8021Ad,
    };
    LinkVlan::new(&vlan.link, parent, vlan.vid).protocol(protocol).mtu(vlan.mtu).link_group(group).build()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo};

    use super::*;

    #[test]
    fn a_service_tag_is_asked_for_in_the_request_that_makes_the_link() {
        let vlan = Vlan {
            place: Place::Host,
            parent: "eth0".into(),
            link: "nlx".into(),
            vid: 100,
            protocol: VlanProtocol::Dot1ad,
            mtu: 1496,
            addresses: Vec::new(),
            port: None,
            advertised: None,
        };
        let made = message(&vlan, 7, 42).attributes;
        for part in [LinkAttribute::Link(7), LinkAttribute::Group(42), LinkAttribute::Mtu(1496)] {
            assert!(made.contains(&part), "{part:?} is missing in {made:?}");
        }
        let data = InfoData::Vlan(vec![InfoVlan::Id(100), InfoVlan::Protocol(KernelProtocol::Ieee8021Ad)]);
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]);
        assert!(made.contains(&info), "{made:?}");
        assert!(!has_leg(&vlan), "it only carries further VLANs");
    }
}
