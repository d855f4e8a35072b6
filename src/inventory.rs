//! What exists on the host and is ours, found by its mark alone: no file says what exists.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use crate::error::Result;
use crate::firewall;
use crate::host::labdir::{self, LabDir};
use crate::host::links::{LinkKind, LinkState, Links, PlaceState, read_altname};
use crate::host::{domains, netns, nft, service, sysctl};
use crate::resource::{
    Bridge, Domain, Id, Kind, Node, Place, Port, Resource, Routes, Ruleset, Service, Sysctls, Tap, Uplink,
    Veth, VethEnd, Vlan, mark, names,
};
use crate::topology::{Attach, Mac};

/// A resource that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// As it was found.
    pub resource: Resource,
    /// What is wrong with it whatever is wanted, such as `is down`.
    pub defects: Vec<String>,
    /// Digest of the description it was made from, where the kernel does not show all of it (rulesets, services,
    /// domains).
    pub digest: Option<String>,
}

/// Everything of one lab.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Resources by id.
    pub found: BTreeMap<Id, Found>,
    /// Links in the lab's group without a mark: made by a run that was cut off in between.
    pub strays: Vec<(Place, String)>,
    /// Names in use on the host that are not this lab's: links, namespaces, domains.
    pub taken: BTreeSet<String>,
    /// Links and addresses of each place that was looked at.
    pub places: BTreeMap<Place, PlaceState>,
    /// Domains of the lab by guest.
    pub domains: BTreeMap<String, domains::ObservedDomain>,
}

/// What an observation is made with.
pub struct Sources<'a> {
    /// The lab's name.
    pub lab: &'a str,
    /// Its directory: only for digests of what the kernel shows in part.
    pub dir: &'a LabDir,
    /// Netlink.
    pub links: &'a Links,
    /// libvirt, where there can be domains of the lab.
    pub domains: Option<&'a dyn domains::Domains>,
}

/// Looks at everything the lab has on this host. `wanted` only says which kernel settings to read.
///
/// # Errors
/// When a source cannot be read.
pub async fn observe(sources: &Sources<'_>, wanted: &[Node]) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    inventory.namespaces(sources).await?;
    inventory.links(sources);
    inventory.rulesets(sources, wanted)?;
    inventory.settings(sources, wanted)?;
    inventory.services(sources);
    inventory.domains(sources).await?;
    Ok(inventory)
}

impl Inventory {
    fn add(&mut self, id: Id, resource: Resource, defects: Vec<String>, digest: Option<String>) {
        self.found.insert(id, Found { resource, defects, digest });
    }

    /// The namespaces of the lab; and the state of every place.
    async fn namespaces(&mut self, sources: &Sources<'_>) -> Result<()> {
        let prefix = names::netns(sources.lab, "");
        self.places.insert(Place::Host, sources.links.observe(&Place::Host).await?);
        for name in netns::list() {
            let Some(guest) = name.strip_prefix(&prefix) else {
                self.taken.insert(name);
                continue;
            };
            let id = Id::new(Kind::Namespace, guest);
            let place = Place::Netns(name.clone());
            // A file without a namespace behind it is left when a run is cut off between the two.
            match sources.links.observe(&place).await {
                Ok(state) => {
                    let routes = Routes { place: place.clone(), routes: state.routes.clone() };
                    if !routes.routes.is_empty() {
                        let id = Id::new(Kind::Routes, guest);
                        self.add(id, Resource::Routes(routes), Vec::new(), None);
                    }
                    self.places.insert(place, state);
                    self.add(id, Resource::Namespace(name), Vec::new(), None);
                }
                Err(e) => {
                    let defects = vec![format!("cannot be entered ({e})")];
                    self.add(id, Resource::Namespace(name), defects, None);
                }
            }
        }
        Ok(())
    }

    fn links(&mut self, sources: &Sources<'_>) {
        let group = names::group(sources.lab);
        let places = std::mem::take(&mut self.places);
        let mut ends: BTreeMap<Id, Vec<(Place, &LinkState)>> = BTreeMap::new();
        for (place, state) in &places {
            for link in state.links.values() {
                self.uplinks(sources.lab, state, link);
                match mark::read(&link.alias) {
                    Some((lab, id)) if lab == sources.lab => match id.kind {
                        Kind::Veth => ends.entry(id).or_default().push((place.clone(), link)),
                        _ => self.link(place, state, &id, link),
                    },
                    _ if link.group == group => self.strays.push((place.clone(), link.name.clone())),
                    _ if *place == Place::Host => {
                        self.taken.insert(link.name.clone());
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
    }

    fn uplinks(&mut self, lab: &str, state: &PlaceState, link: &LinkState) {
        for network in link.altnames.iter().filter_map(|name| read_altname(lab, name)) {
            let bridge = state.name(link.controller).unwrap_or_default().to_owned();
            let defects = if bridge.is_empty() { vec!["is not plugged in".to_owned()] } else { Vec::new() };
            let uplink = Uplink { link: link.name.clone(), bridge };
            self.add(Id::new(Kind::Uplink, network), Resource::Uplink(uplink), defects, None);
        }
    }

    fn link(&mut self, place: &Place, state: &PlaceState, id: &Id, link: &LinkState) {
        let mut defects = down(link);
        let resource = match (&link.kind, id.kind) {
            (LinkKind::Bridge { vlan_filtering, stp, default_pvid }, Kind::Bridge) => {
                if *vlan_filtering && *default_pvid != 0 {
                    defects.push(format!("gives new ports VLAN {default_pvid}"));
                }
                Resource::Bridge(Bridge {
                    link: link.name.clone(),
                    mac: link.mac.unwrap_or(Mac([0; 6])),
                    mtu: link.mtu,
                    vlan_filtering: *vlan_filtering,
                    stp: *stp,
                    addresses: link.addresses.clone(),
                    host_leg: link.link_local,
                    uplinked: false,
                    own_vids: link.vlans.iter().map(|(vid, _)| *vid).collect(),
                })
            }
            (LinkKind::Tun, Kind::Tap) => {
                let port = port(state, link).unwrap_or(Port {
                    bridge: String::new(),
                    attach: Attach::Plain,
                    isolated: false,
                });
                Resource::Tap(Tap { link: link.name.clone(), mtu: link.mtu, port })
            }
            (LinkKind::Vlan { vid }, Kind::Vlan) => Resource::Vlan(Vlan {
                place: place.clone(),
                parent: state.name(link.lower).unwrap_or_default().to_owned(),
                link: link.name.clone(),
                vid: *vid,
                mtu: link.mtu,
                addresses: link.addresses.clone(),
                advertised: advertised(place, link),
            }),
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
            route_localnet: *place == Place::Host && takes_loopback(&link.name),
        };
        let defects = [near, far].iter().flat_map(|(_, link)| down(link)).collect();
        self.add(id, Resource::Veth(Veth { ends: [end(near), end(far)] }), defects, None);
    }

    /// A guest's table is looked for where one is wanted or was loaded: each look starts a program, and a table goes
    /// with its namespace anyway.
    fn rulesets(&mut self, sources: &Sources<'_>, wanted: &[Node]) -> Result<()> {
        let ids: BTreeSet<&Id> =
            wanted.iter().map(|node| &node.id).filter(|id| id.kind == Kind::Ruleset).collect();
        let mut tables = vec![("host".to_owned(), Place::Host, names::table(sources.lab))];
        for (id, found) in &self.found {
            if let Resource::Namespace(name) = &found.resource
                && found.defects.is_empty()
            {
                let (table, place) = (firewall::TABLE.to_owned(), Place::Netns(name.clone()));
                let here = ids.contains(&Id::new(Kind::Ruleset, &id.name));
                if here || nft::was_loaded(sources.dir, &place, &table) {
                    tables.push((id.name.clone(), place, table));
                }
            }
        }
        for (name, place, table) in tables {
            let Some(state) = nft::observe(sources.dir, &place, &table)? else { continue };
            let defects =
                if state.intact { Vec::new() } else { vec!["was changed by somebody else".to_owned()] };
            let digest = state.script.as_ref().map(|script| names::sha256(script.as_bytes()));
            let ruleset = Ruleset { place, table, script: state.script.unwrap_or_default() };
            self.add(Id::new(Kind::Ruleset, name), Resource::Ruleset(ruleset), defects, digest);
        }
        Ok(())
    }

    fn settings(&mut self, sources: &Sources<'_>, wanted: &[Node]) -> Result<()> {
        if let Some(values) = sysctl::held(sources.lab) {
            let held = Sysctls { place: Place::Host, values };
            self.add(Id::new(Kind::Sysctls, "host"), Resource::Sysctls(held), Vec::new(), None);
        }
        for node in wanted {
            let Resource::Sysctls(settings) = &node.resource else { continue };
            let exists = match &settings.place {
                Place::Host => self.found.contains_key(&node.id),
                Place::Netns(_) => self.places.contains_key(&settings.place),
            };
            if exists {
                let values = sysctl::observe(settings)?;
                let found = Sysctls { place: settings.place.clone(), values };
                self.add(node.id.clone(), Resource::Sysctls(found), Vec::new(), None);
            }
        }
        Ok(())
    }

    fn services(&mut self, sources: &Sources<'_>) {
        for process in service::scan().into_iter().filter(|process| process.lab == sources.lab) {
            let known: Option<Service> = labdir::made(&sources.dir.service(&process.id.name));
            let entry = self.found.entry(process.id.clone()).or_insert_with(|| Found {
                resource: Resource::Service(known.unwrap_or(Service {
                    place: Place::Host,
                    argv: Vec::new(),
                    files: BTreeMap::new(),
                })),
                defects: vec!["is not supervised".to_owned()],
                digest: Some(process.digest.clone()),
            });
            if process.supervisor {
                entry.defects.clear();
            }
        }
    }

    async fn domains(&mut self, sources: &Sources<'_>) -> Result<()> {
        let Some(hypervisor) = sources.domains else { return Ok(()) };
        let ours = hypervisor.list().await?;
        let names: BTreeSet<&str> =
            ours.iter().filter(|d| d.lab == sources.lab).map(|d| d.name.as_str()).collect();
        let all = hypervisor.info().await?.domains;
        self.taken
            .extend(all.into_iter().filter(|name| !names.contains(name.as_str())).map(|n| domain_key(&n)));
        for domain in ours.into_iter().filter(|domain| domain.lab == sources.lab) {
            let known: Option<Domain> = labdir::made(&sources.dir.guest(&domain.guest));
            let resource = known.unwrap_or_else(|| unknown_domain(&domain));
            let defects = if domain.running { Vec::new() } else { vec!["is not running".to_owned()] };
            let id = Id::new(Kind::Domain, &domain.guest);
            self.add(id, Resource::Domain(Box::new(resource)), defects, Some(domain.digest.clone()));
            self.domains.insert(domain.guest.clone(), domain);
        }
        Ok(())
    }

    /// Addresses on a link, static and dynamic.
    #[must_use]
    pub fn addresses(link: &LinkState) -> Vec<IpNetwork> {
        link.addresses.iter().chain(&link.dynamic).copied().collect()
    }
}

/// Domains' names live in a space of their own.
#[must_use]
pub fn domain_key(name: &str) -> String {
    format!("domain {name}")
}

/// What is known of a domain whose files were lost.
fn unknown_domain(domain: &domains::ObservedDomain) -> Domain {
    Domain {
        guest: domain.guest.clone(),
        name: domain.name.clone(),
        memory_mib: 0,
        cpus: 0,
        nics: Vec::new(),
        image: crate::topology::Image::BuiltIn,
        config: crate::guest::config::GuestConfig::empty(&domain.lab, &domain.guest),
    }
}

fn advertised(place: &Place, link: &LinkState) -> Option<bool> {
    (*place != Place::Host).then_some(link.accepts_ra)
}

/// Whether packets for the loopback may come in by a link of this place.
fn takes_loopback(link: &str) -> bool {
    std::fs::read_to_string(crate::host::links::route_localnet(link)).is_ok_and(|text| text.trim() == "1")
}

fn down(link: &LinkState) -> Vec<String> {
    if link.up { Vec::new() } else { vec![format!("`{}` is down", link.name)] }
}

/// How a link is plugged in.
fn port(state: &PlaceState, link: &LinkState) -> Option<Port> {
    let bridge = link.controller.and_then(|index| state.links.get(&index))?;
    let filtering = matches!(bridge.kind, LinkKind::Bridge { vlan_filtering: true, .. });
    // Without filtering the kernel still lists the VLAN 1 it would use.
    let attach = if filtering { link.attach() } else { Attach::Plain };
    Some(Port { bridge: bridge.name.clone(), attach, isolated: link.isolated })
}
