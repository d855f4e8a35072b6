//! Links as resources.

use std::collections::BTreeMap;

use super::{Found, Inventory, Sources};
use crate::error::Result;
use crate::host::links::{LinkKind, LinkState, PORT_STATE, PlaceState, VXLAN_PORT, read_altname};
use crate::resource::{
    Bridge, Id, Kind, Macvlan, Place, Port, Resource, Tap, Uplink, Veth, VethEnd, Vlan, Vxlan, mark, names,
};
use crate::topology::{Attach, Mac};

impl Inventory {
    pub(super) fn links(&mut self, sources: &Sources<'_>) -> Result<()> {
        let underlays = sources.links.underlays(&self.places)?;
        let places = std::mem::take(&mut self.places);
        let mut ends: BTreeMap<Id, Vec<(Place, &LinkState)>> = BTreeMap::new();
        for (place, state) in &places {
            for link in state.links.values() {
                self.uplinks(sources.lab, state, link);
                match mark::read(&link.alias) {
                    Some((lab, id)) if lab == sources.lab => match id.kind {
                        Kind::Veth => ends.entry(id).or_default().push((place.clone(), link)),
                        _ => self.link(sources.lab, &places, &underlays, place, &id, link),
                    },
                    _ if link.belongs_to(sources.lab, place) => {
                        self.strays.push((place.clone(), link.name.clone()));
                    }
                    _ if *place == Place::Host => {
                        self.taken.extend(link.altnames.iter().chain([&link.name]).cloned());
                    }
                    _ => {}
                }
            }
        }
        for (id, ends) in ends {
            self.veth(sources.lab, &places, id, &ends);
        }
        self.places = places;
        let uplinked: Vec<String> =
            self.found.keys().filter(|id| id.kind == Kind::Uplink).map(|id| id.name.clone()).collect();
        for network in uplinked {
            if let Some(Found { resource: Resource::Bridge(bridge), .. }) =
                self.found.get_mut(&Id::new(Kind::Bridge, network))
            {
                bridge.uplinked = true;
            }
        }
        Ok(())
    }

    fn uplinks(&mut self, lab: &str, state: &PlaceState, link: &LinkState) {
        for network in link.altnames.iter().filter_map(|name| read_altname(lab, name)) {
            let port = port(state, link);
            // A port hears nothing for itself: an address on it cuts the host off.
            let kept = Self::addresses(link).into_iter().map(|address| format!("still holds {address}"));
            let defects = if port.is_none() { vec!["is not plugged in".to_owned()] } else { kept.collect() };
            let (bridge, attach) =
                port.map_or((String::new(), Attach::Plain), |port| (port.bridge, port.attach));
            let uplink = Uplink { link: link.name.clone(), bridge, attach };
            self.add(Id::new(Kind::Uplink, network), Resource::Uplink(uplink), defects, None);
        }
    }

    fn link(
        &mut self,
        lab: &str,
        places: &BTreeMap<Place, PlaceState>,
        underlays: &BTreeMap<i32, Place>,
        place: &Place,
        id: &Id,
        link: &LinkState,
    ) {
        let Some(state) = places.get(place) else { return };
        let mut defects = wrong(lab, place, state, link);
        if *place == Place::Host && (matches!(id.kind, Kind::Bridge | Kind::Vlan) || is_macvtap(link)) {
            defects.extend(part(link));
        }
        let resource = match (&link.kind, id.kind) {
            (LinkKind::Bridge { vlan_filtering, stp, default_pvid }, Kind::Bridge) => {
                if *vlan_filtering && *default_pvid != 0 {
                    defects.push(format!("gives new ports VLAN {default_pvid}"));
                }
                // Without filtering the kernel still lists the VLAN 1 it would use.
                let (own_vids, own_native) =
                    if *vlan_filtering { own_vlans(link) } else { Default::default() };
                Resource::Bridge(Bridge {
                    link: link.name.clone(),
                    mac: link.mac.unwrap_or(Mac([0; 6])),
                    mtu: link.mtu,
                    vlan_filtering: *vlan_filtering,
                    stp: *stp,
                    addresses: link.addresses.clone(),
                    host_leg: link.link_local,
                    uplinked: false,
                    own_vids,
                    own_native,
                })
            }
            (LinkKind::Tun, Kind::Tap) => {
                let port = port(state, link).unwrap_or_else(nowhere);
                Resource::Tap(Tap { link: link.name.clone(), mtu: link.mtu, port })
            }
            (LinkKind::Vlan { vid, protocol }, Kind::Vlan) => Resource::Vlan(Vlan {
                place: place.clone(),
                parent: state.name(link.lower).unwrap_or_default().to_owned(),
                link: link.name.clone(),
                vid: *vid,
                protocol: *protocol,
                port: port(state, link),
                mtu: link.mtu,
                addresses: link.addresses.clone(),
                advertised: advertised(place, link),
            }),
            (LinkKind::Macvlan { tap, mode: Some(mode) }, Kind::Macvlan) => {
                // What is born in another namespace than the link below shows that link's index over there.
                let below = if link.netns_below.is_some() { places.get(&Place::Host) } else { Some(state) };
                Resource::Macvlan(Macvlan {
                    place: place.clone(),
                    parent: below.and_then(|state| state.name(link.lower)).unwrap_or_default().to_owned(),
                    link: link.name.clone(),
                    mac: link.mac.unwrap_or(Mac([0; 6])),
                    mtu: link.mtu,
                    mode: *mode,
                    tap: *tap,
                    addresses: link.addresses.clone(),
                    advertised: advertised(place, link),
                })
            }
            (
                LinkKind::Vxlan { vni, port: VXLAN_PORT, local: Some(local), remote: Some(remote) },
                Kind::Vxlan,
            ) => {
                // One that is none of the lab's any more has no name.
                let named = |id| underlays.get(&id).cloned().unwrap_or(Place::Netns(String::new()));
                Resource::Vxlan(Vxlan {
                    link: link.name.clone(),
                    underlay: link.netns_below.map_or(Place::Host, named),
                    vni: *vni,
                    local: *local,
                    remote: *remote,
                    mtu: link.mtu,
                    port: port(state, link).unwrap_or_else(nowhere),
                })
            }
            // Ours by its mark, but not what the mark says: to be removed.
            _ => {
                self.strays.push((place.clone(), link.name.clone()));
                return;
            }
        };
        self.add(id.clone(), resource, defects, None);
    }

    fn veth(
        &mut self,
        lab: &str,
        places: &BTreeMap<Place, PlaceState>,
        id: Id,
        found: &[(Place, &LinkState)],
    ) {
        let near = names::link(lab, "veth", &id.name);
        let (first, second): (Vec<_>, Vec<_>) = found.iter().partition(|(_, link)| link.name == near);
        let ([near], [far]) = (first.as_slice(), second.as_slice()) else {
            // Only one end carries the mark: the run that made it was cut off.
            self.strays.extend(found.iter().map(|(place, link)| (place.clone(), link.name.clone())));
            return;
        };
        let end = |(place, link): &(Place, &LinkState)| VethEnd {
            place: place.clone(),
            link: link.name.clone(),
            mac: link.mac.unwrap_or(Mac([0; 6])),
            mtu: link.mtu,
            port: places.get(place).and_then(|state| port(state, link)),
            addresses: link.addresses.clone(),
            advertised: advertised(place, link),
            route_localnet: *place == Place::Host && link.route_localnet,
        };
        let wrong = |(place, link): &&(Place, &LinkState)| {
            places.get(place).map(|state| wrong(lab, place, state, link)).unwrap_or_default()
        };
        let defects = [near, far].into_iter().flat_map(wrong).collect();
        self.add(id, Resource::Veth(Veth { ends: [end(near), end(far)] }), defects, None);
    }
}

fn is_macvtap(link: &LinkState) -> bool {
    matches!(link.kind, LinkKind::Macvlan { tap: true, .. })
}

fn advertised(place: &Place, link: &LinkState) -> Option<bool> {
    (*place != Place::Host).then_some(link.accepts_ra)
}

/// What is wrong with a link whatever is wanted.
fn wrong(lab: &str, place: &Place, state: &PlaceState, link: &LinkState) -> Vec<String> {
    let name = &link.name;
    let down = (!link.up).then(|| format!("`{name}` is down"));
    let group = (link.group != names::group(lab)).then(|| format!("the group of `{name}` was changed"));
    // All ports are off while their bridge is down, which is said of the bridge.
    let bridge = link.controller.and_then(|index| state.links.get(&index));
    let idle = bridge.is_some_and(|bridge| !bridge.up);
    let odd = link
        .odd
        .iter()
        .filter(|what| !idle || **what != PORT_STATE)
        .map(|what| format!("{what} of `{name}` was changed"));
    let ipv6 = (link.ipv6_off && has_ipv6(place, state)).then(|| format!("IPv6 is off on `{name}`"));
    down.into_iter().chain(group).chain(odd).chain(ipv6).collect()
}

/// Whether new links of a place have IPv6.
fn has_ipv6(place: &Place, state: &PlaceState) -> bool {
    let off = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    state.link("lo").is_some_and(|lo| !lo.ipv6_off)
        && (*place != Place::Host || off().is_ok_and(|off| off.trim() == "0"))
}

/// Settings that are at odds with whether the host takes part on a link, which the kernel shows by whether it gives
/// itself a link-local address there. What a leg of the host's does with advertisements is its own affair.
fn part(link: &LinkState) -> Vec<String> {
    let name = &link.name;
    let mut defects = Vec::new();
    match (link.link_local, link.answers_arp) {
        (false, true) => defects.push(format!("`{name}` answers ARP for the host")),
        (true, false) if !link.addresses.is_empty() => defects.push(format!("`{name}` answers no ARP")),
        _ => {}
    }
    if !link.link_local && link.accepts_ra {
        defects.push(format!("`{name}` listens to router advertisements"));
    }
    defects
}

/// The host's part in a bridge that filters: tagged VIDs, and the one of its untagged frames.
fn own_vlans(link: &LinkState) -> (Vec<u16>, Option<u16>) {
    match link.attach() {
        Attach::Access(vid) => (Vec::new(), Some(vid)),
        Attach::Trunk { tagged, native } => (tagged, native),
        Attach::Plain => (Vec::new(), None),
    }
}

fn nowhere() -> Port {
    Port { bridge: String::new(), attach: Attach::Plain, isolated: false }
}

/// How a link is plugged in.
fn port(state: &PlaceState, link: &LinkState) -> Option<Port> {
    let bridge = link.controller.and_then(|index| state.links.get(&index))?;
    // One of a lab that somebody renamed is still the same.
    let name = match mark::read(&bridge.alias) {
        Some((lab, id)) if id.kind == Kind::Bridge => names::link(&lab, "bridge", &id.name),
        _ => bridge.name.clone(),
    };
    let filtering = matches!(bridge.kind, LinkKind::Bridge { vlan_filtering: true, .. });
    // Without filtering the kernel still lists the VLAN 1 it would use.
    let attach = if filtering { link.attach() } else { Attach::Plain };
    Some(Port { bridge: name, attach, isolated: link.isolated })
}
