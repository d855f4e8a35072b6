//! What exists on the host and is ours, found by its mark alone: no file says what exists.

mod links;

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use crate::error::Result;
use crate::firewall;
use crate::host::labdir::{self, LabDir};
use crate::host::links::{LinkState, Links, PlaceState};
use crate::host::{domains, listening, netns, nft, service, sysctl};
use crate::resource::{
    Domain, HostPort, Id, Kind, Node, Place, Resource, Routes, Ruleset, RulesetFamily, Service, Sysctls,
    names,
};

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
    /// Ports of the host that other labs forward, where the lab wants to forward any.
    pub forwards: Vec<(String, HostPort)>,
    /// Ports of the host on which programs listen, where the lab wants to forward any.
    pub listening: Vec<HostPort>,
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
    inventory.links(sources).await?;
    inventory.rulesets(sources)?;
    let forwards = |node: &Node| matches!(&node.resource, Resource::Ruleset(r) if !r.ports.is_empty());
    if wanted.iter().any(forwards) {
        inventory.forwards = nft::forwards::of_others(sources.lab)?;
        inventory.listening = listening::ports();
    }
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
        self.places.insert(Place::Host, sources.links.observe(&Place::Host).await?);
        for name in netns::list() {
            let guest = match names::read_netns(&name) {
                Some((lab, guest)) if lab == sources.lab => guest.to_owned(),
                _ => {
                    self.taken.insert(name);
                    continue;
                }
            };
            let id = Id::new(Kind::Namespace, &guest);
            let place = Place::Netns(name.clone());
            // A file without a namespace behind it is left when a run is cut off between the two.
            match sources.links.observe(&place).await {
                Ok(state) => {
                    let routes = Routes { place: place.clone(), routes: state.routes.clone() };
                    if !routes.routes.is_empty() {
                        let id = Id::new(Kind::Routes, &guest);
                        self.add(id, Resource::Routes(routes), Vec::new(), None);
                    }
                    self.places.insert(place, state);
                    self.add(id, Resource::Namespace(name), Vec::new(), None);
                }
                // It is there: what kept us from looking says nothing against it.
                Err(e) if netns::is_bound(&name) => return Err(e),
                Err(e) => {
                    let defects = vec![format!("cannot be entered ({e})")];
                    self.add(id, Resource::Namespace(name), defects, None);
                }
            }
        }
        Ok(())
    }

    /// The lab's tables, wherever they are and whether or not anything says that they should be: on the host by its name,
    /// in a namespace of its own by netloom's.
    fn rulesets(&mut self, sources: &Sources<'_>) -> Result<()> {
        let mut places = vec![("host".to_owned(), Place::Host, names::table(sources.lab))];
        for (id, found) in &self.found {
            if let Resource::Namespace(name) = &found.resource
                && found.defects.is_empty()
            {
                places.push((id.name.clone(), Place::Netns(name.clone()), firewall::TABLE.to_owned()));
            }
        }
        let mut tables = Vec::new();
        for (name, place, ours) in places {
            for (family, table) in nft::tables(&place)?.into_iter().filter(|(_, table)| *table == ours) {
                let name = match family {
                    RulesetFamily::Inet => name.clone(),
                    RulesetFamily::Bridge => format!("{name}.bridge"), // as in `BRIDGE_RULESET`
                };
                tables.push((name, place.clone(), family, table));
            }
        }
        for (name, place, family, table) in tables {
            let Some(state) = nft::observe(sources.dir, &place, family, &table)? else { continue };
            let defects =
                if state.intact { Vec::new() } else { vec!["was changed by somebody else".to_owned()] };
            let digest = state.script.as_ref().map(|script| names::sha256(script.as_bytes()));
            let script = state.script.unwrap_or_default();
            let ruleset = Ruleset { place, family, table, script, ports: Vec::new() };
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
                let mut values = sysctl::observe(settings)?;
                // What the lab once asked for and wants no longer.
                if let Some(Resource::Sysctls(held)) = self.found.get(&node.id).map(|found| &found.resource) {
                    values.extend(
                        held.values
                            .iter()
                            .filter(|(path, _)| !settings.values.contains_key(*path))
                            .map(|(path, value)| (path.clone(), value.clone())),
                    );
                }
                let found = Sysctls { place: settings.place.clone(), values };
                self.add(node.id.clone(), Resource::Sysctls(found), Vec::new(), None);
            }
        }
        Ok(())
    }

    fn services(&mut self, sources: &Sources<'_>) {
        let mut services: BTreeMap<Id, Vec<service::Marked>> = BTreeMap::new();
        for process in service::scan().into_iter().filter(|process| process.lab == sources.lab) {
            services.entry(process.id.clone()).or_default().push(process);
        }
        for (id, processes) in services {
            let home = sources.dir.service(&id.name);
            let known: Option<Service> = labdir::made(&home);
            let defects = service::defects(&home, known.as_ref(), &processes);
            let resource =
                known.unwrap_or(Service { place: Place::Host, argv: Vec::new(), files: BTreeMap::new() });
            let digest = processes.into_iter().next().map(|process| process.digest);
            self.add(id, Resource::Service(resource), defects, digest);
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
            // A record that is about another one is not this one's.
            let known = known.filter(|known| (&known.name, &known.guest) == (&domain.name, &domain.guest));
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
