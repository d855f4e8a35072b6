//! VLANs of bridges' ports, and of bridges themselves.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use rtnetlink::LinkBridgeVlan;

use super::Links;
use super::observe::{LinkKind, PlaceState};
use super::wire::{Refusal, Wire};
use crate::error::{Context, Result};
use crate::resource::{Bridge, Place};
use crate::topology::Attach;

type Entry = (u16, BridgeVlanInfoFlags);

const RANGE: BridgeVlanInfoFlags = BridgeVlanInfoFlags::RangeBegin.union(BridgeVlanInfoFlags::RangeEnd);

impl Links {
    /// Brings a port's VLANs from `old` to `new`.
    pub(super) async fn set_port_vlans(&self, index: u32, new: &Attach, old: &Attach) -> Result<()> {
        self.set_vlans(index, false, &entries(new), &entries(old)).await
    }

    /// Brings the VLANs of the bridge itself (the host's part in it) to what is wanted.
    pub(super) async fn set_own_vlans(
        &self,
        index: u32,
        wanted: &Bridge,
        found: Option<&Bridge>,
    ) -> Result<()> {
        let own = |bridge: &Bridge| {
            entries(&Attach::Trunk { tagged: bridge.own_vids.clone(), native: bridge.own_native })
        };
        self.set_vlans(index, true, &own(wanted), &found.map(own).unwrap_or_default()).await
    }

    async fn set_vlans(&self, index: u32, itself: bool, new: &[Entry], old: &[Entry]) -> Result<()> {
        let wire = self.at(&Place::Host)?;
        let whose = if itself { "bridge" } else { "port" };
        let failed = || format!("cannot set the VLANs of a {whose}");
        let without = |all: &[Entry], others: &[Entry]| -> Vec<Entry> {
            all.iter().filter(|entry| !others.contains(entry)).copied().collect()
        };
        if let Some(message) = message(index, itself, &without(old, new)) {
            wire.delete_link(message).context(failed)?;
        }
        if let Some(message) = message(index, itself, &without(new, old)) {
            wire.set_link(message).context(failed)?;
        }
        Ok(())
    }
}

/// All of them in one request, as ranges: there can be thousands.
fn message(index: u32, itself: bool, entries: &[Entry]) -> Option<LinkMessage> {
    let mut message = LinkBridgeVlan::new(index);
    if itself {
        message = message.bridge_self();
    }
    for (first, last, flags) in ranges(entries) {
        message = if first == last {
            message.vlan(first, flags)
        } else {
            message.vlan_range_start(first, flags).vlan_range_end(last, flags)
        };
    }
    (!entries.is_empty()).then(|| message.build())
}

/// The VLAN entries of a port: tagged ones, and the untagged one with the PVID.
fn entries(attach: &Attach) -> Vec<Entry> {
    let untagged = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    match attach {
        Attach::Plain => Vec::new(),
        Attach::Access(vid) => vec![(*vid, untagged)],
        Attach::Trunk { tagged, native } => tagged
            .iter()
            .map(|vid| (*vid, BridgeVlanInfoFlags::empty()))
            .chain(native.map(|vid| (vid, untagged)))
            .collect(),
    }
}

/// Runs of VIDs with the same flags; the kernel takes no PVID within one.
fn ranges(entries: &[Entry]) -> Vec<(u16, u16, BridgeVlanInfoFlags)> {
    let mut out: Vec<(u16, u16, BridgeVlanInfoFlags)> = Vec::new();
    for (vid, flags) in entries {
        match out.last_mut() {
            Some((_, last, run))
                if last.checked_add(1) == Some(*vid)
                    && run == flags
                    && !flags.contains(BridgeVlanInfoFlags::Pvid) =>
            {
                *last = *vid;
            }
            _ => out.push((*vid, *vid, *flags)),
        }
    }
    out
}

/// Adds the VLANs of ports and bridges to what was found. Compressed, since a port with all VLANs does not fit into one
/// message of a dump.
pub(super) fn add_bridge_vlans(wire: &Wire, state: &mut PlaceState) -> Result<(), Refusal> {
    if !state.links.values().any(|l| matches!(l.kind, LinkKind::Bridge { vlan_filtering: true, .. })) {
        return Ok(());
    }
    let mut request = LinkMessage::default();
    request.header.interface_family = AddressFamily::Bridge;
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
    for message in wire.links(request, |message| message)? {
        let Some(link) = state.links.get_mut(&message.header.index) else { continue };
        for attribute in &message.attributes {
            if let LinkAttribute::AfSpecBridge(specs) = attribute {
                let infos = specs.iter().filter_map(|spec| match spec {
                    AfSpecBridge::VlanInfo(info) => Some((info.vid, info.flags)),
                    _ => None,
                });
                link.vlans.extend(expanded(infos));
            }
        }
        link.vlans.sort_by_key(|(vid, _)| *vid);
        link.vlans.dedup_by_key(|(vid, _)| *vid);
    }
    Ok(())
}

fn expanded(infos: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut begin = None;
    for (vid, flags) in infos {
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begin = Some(vid);
            continue;
        }
        let first = begin.take().filter(|_| flags.contains(BridgeVlanInfoFlags::RangeEnd)).unwrap_or(vid);
        out.extend((first..=vid).map(|vid| (vid, flags.difference(RANGE))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_travel_there_and_back() {
        let trunk = Attach::Trunk { tagged: vec![1, 2, 3, 7, 9, 10], native: Some(11) };
        let entries = entries(&trunk);
        let runs: Vec<(u16, u16)> = ranges(&entries).iter().map(|(first, last, _)| (*first, *last)).collect();
        assert_eq!(runs, [(1, 3), (7, 7), (9, 10), (11, 11)]);
        let sent = ranges(&entries).into_iter().flat_map(|(first, last, flags)| {
            let ends = [
                (first, flags | BridgeVlanInfoFlags::RangeBegin),
                (last, flags | BridgeVlanInfoFlags::RangeEnd),
            ];
            if first == last { vec![(first, flags)] } else { ends.to_vec() }
        });
        assert_eq!(expanded(sent), entries);
    }

    #[test]
    fn nothing_to_say_is_no_request() {
        assert!(message(3, false, &[]).is_none() && message(3, true, &[]).is_none());
    }
}
