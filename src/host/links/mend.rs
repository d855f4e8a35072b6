//! Putting right what somebody changed of a link by hand, and what no resource says anything about.

use netlink_packet_route::link::InfoKind;
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec};

use super::read::AGEING_TIME;
use super::{LinkKind, Links};
use crate::error::{Context, Result};
use crate::host::netns;
use crate::resource::{Place, names};

impl Links {
    /// Gives a link another name. Until Linux 6.2 only one that is down could have one.
    pub(super) async fn rename(&self, index: u32, name: &str) -> Result<()> {
        let wire = self.at(&Place::Host)?;
        let message = || LinkUnspec::new_with_index(index).name(name.to_owned()).build();
        if wire.set_link(message()).is_ok() {
            return Ok(());
        }
        self.set_up(&Place::Host, index, false).await?;
        wire.set_link(message()).context(|| format!("cannot name link `{name}`"))
    }

    /// Gives the settings of a port or a bridge back that somebody changed and that netloom leaves as they are.
    pub(super) async fn make_usual(&self, index: u32) -> Result<()> {
        let state = self.observe(&Place::Host).await?;
        let Some(link) = state.links.get(&index).filter(|link| !link.odd.is_empty()) else { return Ok(()) };
        let wire = self.at(&Place::Host)?;
        if matches!(link.kind, LinkKind::Bridge { .. }) {
            let message = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge)
                .index(index)
                .ageing_time(AGEING_TIME)
                .group_fwd_mask(0)
                .nf_call_iptables(false)
                .nf_call_ip6tables(false)
                .nf_call_arptables(false);
            let changed = wire.change_link(message.build());
            return changed.context(|| format!("cannot change bridge `{}`", link.name));
        }
        let message = LinkBridgePort::new(index)
            .hairpin(false)
            .guard(false)
            .root_block(false)
            .learning(true)
            .flood(true)
            .mcast_flood(true)
            .bcast_flood(true)
            .proxy_arp(false)
            .proxy_arp_wifi(false)
            .neigh_suppress(false)
            .locked(false);
        let changed = wire.change_link(message.build());
        changed.context(|| format!("cannot change port `{}`", link.name))?;
        // The kernel decides anew whether a port forwards when it comes up.
        self.set_up(&Place::Host, index, false).await?;
        self.set_up(&Place::Host, index, link.up).await
    }

    /// Up, and in the lab's group.
    pub(super) async fn keep(&self, place: &Place, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).link_group(names::group(&self.lab)).up().build();
        let wire = self.at(place)?;
        wire.set_link(message).context(|| "cannot bring a link up".into())
    }
}

/// Switches IPv6 on where somebody switched it off, in a place that has it.
pub(super) fn allow_ipv6(place: &Place, link: &str) -> Result<()> {
    let of = |name: &str| format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    let (usual, own) = (of("default"), of(link));
    let allowed = netns::within(place, move || {
        let is =
            |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        if is(&usual, "0") && is(&own, "1") { std::fs::write(&own, "0") } else { Ok(()) }
    })?;
    allowed.context(|| format!("cannot switch IPv6 on on `{link}`"))
}
