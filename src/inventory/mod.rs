//! What exists on the host and is ours, found by its mark alone: no file says what exists.

mod links;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use places::Visit;

use crate::error::Result;
use crate::firewall;
use crate::host::labdir::{self, LabDir};
use crate::host::links::{LinkKind, LinkState, Links, PlaceState};
use crate::host::workers::beside;
use crate::host::{domains, listening, nft, service, sysctl};
use crate::resource::{
    Domain, HostPort, Id, Kind, Node, Place, Resource, Ruleset, RulesetFamily, Service, Sysctls, names,
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
    /// Rulesets that were loaded a moment ago.
    pub(crate) notes: &'a nft::notes::Notes,
    /// libvirt, where there can be domains of the lab.
    pub domains: Option<&'a dyn domains::Domains>,
}

/// What an earlier look showed, and where something was changed since.
#[derive(Clone, Copy)]
pub struct Earlier<'a> {
    /// What was seen then.
    pub seen: &'a Inventory,
    /// Where to look again.
    pub touched: &'a Touched,
}

/// Where something was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Places, the host among them.
    pub places: BTreeSet<Place>,
    /// Links of the host by kernel name; `None` is any of them.
    pub links: Option<BTreeSet<String>>,
    /// Whether the lab's tables on the host are among it.
    pub tables: bool,
}

impl Earlier<'_> {
    /// The host as it was seen, and the links of it to look at again: where these are few, and no bridge filtered VLANs, which
    /// the kernel lists for all ports at once.
    fn host(&self) -> Option<(&PlaceState, &BTreeSet<String>)> {
        let seen = self.seen.places.get(&Place::Host)?;
        let links = self.touched.links.as_ref().filter(|links| links.len() <= FEW)?;
        let filters = |link: &LinkState| matches!(link.kind, LinkKind::Bridge { vlan_filtering: true, .. });
        (!seen.links.values().any(filters)).then_some((seen, links))
    }
}

/// So many links are asked for one by one; more are faster listed with all others.
const FEW: usize = 64;

/// Looks at everything the lab has on this host. `wanted` only says which kernel settings to read. After an earlier look
/// the namespaces in which nothing was changed since are not visited again, nor are links of the host: they count as they
/// were.
///
/// # Errors
/// When a source cannot be read.
pub async fn observe(
    sources: &Sources<'_>,
    wanted: &[Node],
    earlier: Option<Earlier<'_>>,
) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    let tables = || match earlier {
        Some(Earlier { touched: Touched { tables: false, .. }, .. }) => Ok(None),
        _ => tables(sources).map(Some),
    };
    // What `nft` says of a thousand networks takes as long as all that is made of the rest.
    let (tables, visits) = beside(tables, || inventory.seen(sources, wanted, earlier));
    let visits = visits?;
    match (tables?, earlier) {
        (Some(tables), _) => inventory.host_rulesets(sources, tables),
        (None, Some(earlier)) => inventory.take_over_host_rulesets(earlier.seen),
        (None, None) => {}
    }
    inventory.rulesets(sources, &visits)?;
    let forwards = |node: &Node| matches!(&node.resource, Resource::Ruleset(r) if !r.ports.is_empty());
    if wanted.iter().any(forwards) {
        inventory.forwards = nft::forwards::of_others(sources.lab)?;
        inventory.listening = listening::ports();
    }
    inventory.settings(sources, wanted, visits)?;
    inventory.services(sources);
    inventory.domains(sources).await?;
    Ok(inventory)
}

/// The lab's tables on the host.
fn tables(sources: &Sources<'_>) -> Result<Vec<(RulesetFamily, nft::TableState)>> {
    let table = names::table(sources.lab);
    let mut tables = Vec::new();
    for (family, _) in nft::tables(&Place::Host)?.into_iter().filter(|(_, found)| *found == table) {
        let found = sources.notes.observe(sources.dir, &Place::Host, family, &table)?;
        tables.extend(found.map(|found| (family, found)));
    }
    Ok(tables)
}

impl Inventory {
    fn add(&mut self, id: Id, resource: Resource, defects: Vec<String>, digest: Option<String>) {
        self.found.insert(id, Found { resource, defects, digest });
    }

    /// Links, on the host and in namespaces, and what else a visit to the namespaces shows.
    fn seen(
        &mut self,
        sources: &Sources<'_>,
        wanted: &[Node],
        earlier: Option<Earlier<'_>>,
    ) -> Result<Vec<Visit>> {
        let host = || match earlier.as_ref().and_then(Earlier::host) {
            Some((seen, links)) => sources.links.observe_again(seen, links),
            None => sources.links.observe_host(),
        };
        // The host alone takes as long as hundreds of namespaces.
        let (host, visits) = self.namespaces(sources, wanted, earlier, host);
        let visits = visits?;
        self.places.insert(Place::Host, host?);
        self.links(sources)?;
        Ok(visits)
    }

    fn host_rulesets(&mut self, sources: &Sources<'_>, tables: Vec<(RulesetFamily, nft::TableState)>) {
        let table = names::table(sources.lab);
        for (family, state) in tables {
            self.ruleset("host", Place::Host, family, &table, state);
        }
    }

    fn take_over_host_rulesets(&mut self, seen: &Inventory) {
        let at_host =
            |found: &Found| matches!(&found.resource, Resource::Ruleset(r) if r.place == Place::Host);
        let found = seen.found.iter().filter(|(_, found)| at_host(found));
        self.found.extend(found.map(|(id, found)| (id.clone(), found.clone())));
    }

    /// The lab's tables in namespaces, wherever they are and whether or not anything says that they should be: there
    /// they have netloom's name.
    fn rulesets(&mut self, sources: &Sources<'_>, visits: &[Visit]) -> Result<()> {
        for Visit { node, place, tables, .. } in visits {
            for (family, table) in tables.iter().filter(|(_, table)| table == firewall::TABLE) {
                if let Some(state) = sources.notes.observe(sources.dir, place, *family, table)? {
                    self.ruleset(node, place.clone(), *family, table, state);
                }
            }
        }
        Ok(())
    }

    fn ruleset(
        &mut self,
        node: &str,
        place: Place,
        family: RulesetFamily,
        table: &str,
        state: nft::TableState,
    ) {
        let name = match family {
            RulesetFamily::Inet => node.to_owned(),
            RulesetFamily::Bridge => format!("{node}.bridge"), // as in `BRIDGE_RULESET`
        };
        let defects = if state.intact { Vec::new() } else { vec!["was changed by somebody else".to_owned()] };
        let digest = state.script.as_ref().map(|script| names::sha256(script.as_bytes()));
        let script = state.script.unwrap_or_default();
        let ruleset = Ruleset { place, family, table: table.to_owned(), script, ports: Vec::new() };
        self.add(Id::new(Kind::Ruleset, name), Resource::Ruleset(ruleset), defects, digest);
    }

    fn settings(&mut self, sources: &Sources<'_>, wanted: &[Node], visits: Vec<Visit>) -> Result<()> {
        for (id, found) in visits.into_iter().flat_map(|visit| visit.settings) {
            self.add(id, Resource::Sysctls(found), Vec::new(), None);
        }
        let Some(held) = sysctl::held(sources.lab) else { return Ok(()) };
        let mut found = Sysctls { place: Place::Host, values: held };
        for node in wanted {
            let Resource::Sysctls(settings @ Sysctls { place: Place::Host, .. }) = &node.resource else {
                continue;
            };
            // What the lab once asked for and wants no longer stays as it is recorded.
            found.values.retain(|path, _| !settings.values.contains_key(path));
            found.values.extend(sysctl::observe(settings)?);
        }
        self.add(Id::new(Kind::Sysctls, "host"), Resource::Sysctls(found), Vec::new(), None);
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
