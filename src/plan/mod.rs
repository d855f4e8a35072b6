//! Desired against observed: what must change, why, and in which order. No I/O.

mod difference;
mod ports;

use std::collections::{HashMap, HashSet};
use std::fmt;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::inventory::{Inventory, domain_key};
use crate::resource::{Bridge, Id, Kind, Macvlan, Node, Place, Port, Resource, Vlan};

use difference::Difference;
pub use difference::digest;

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// It does not exist yet.
    Create,
    /// It is changed in place.
    Update,
    /// It is removed and made anew.
    Replace,
    /// It is removed.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Replace => "replace",
            Verb::Delete => "delete",
        })
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Of what.
    pub id: Id,
    /// How.
    pub verb: Verb,
    /// Why, in words: `MTU 1500 → 9000`.
    pub reasons: Vec<String>,
    /// What it shall be; absent for a deletion.
    pub wanted: Option<Resource>,
    /// What it is; absent for a creation.
    pub found: Option<Resource>,
    /// What must be there first.
    pub needs: Vec<Id>,
}

/// Everything that must change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Links in the lab's group without a mark; removed first.
    pub strays: Vec<(Place, String)>,
    /// Removals, in the order in which they are done.
    pub removals: Vec<Change>,
    /// Everything else; `needs` orders it.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Whether nothing has to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strays.is_empty() && self.removals.is_empty() && self.changes.is_empty()
    }

    /// What a person is told, each change once.
    #[must_use]
    pub fn summary(&self) -> Vec<Summary> {
        let strays = self.strays.iter().map(|(_, link)| Summary {
            verb: Verb::Delete,
            kind: "link",
            name: link.clone(),
            reasons: vec!["left by a run that was cut off".to_owned()],
        });
        let removals = self.removals.iter().filter(|change| change.verb == Verb::Delete);
        let changes = removals.chain(&self.changes).map(|change| Summary {
            verb: change.verb,
            kind: change.id.kind.word(),
            name: change.id.name.clone(),
            reasons: change.reasons.clone(),
        });
        strays.chain(changes).collect()
    }
}

/// A change as reported (`--json`: these names).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `create`, `update`, `replace` or `delete`.
    #[serde(rename = "action")]
    pub verb: Verb,
    /// Kind of resource.
    pub kind: &'static str,
    /// Name within the lab.
    pub name: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// Compares what is wanted with what was found.
///
/// # Errors
/// Exit 3 when something that is not the lab's has a name that the lab needs.
pub fn compare(wanted: &[Node], inventory: &Inventory) -> Result<Plan> {
    let mut plan = Plan { strays: inventory.strays.clone(), ..Plan::default() };
    let mut numbers = HashMap::new();
    for node in in_order(wanted) {
        let before = plan.changes.len();
        ports::refuse_forwarded(node, inventory)?;
        match inventory.found.get(&node.id) {
            None => {
                refuse_taken(node, inventory)?;
                refuse_overlap(node, wanted, inventory)?;
                if !is_nothing(&node.resource) {
                    plan.changes.push(creation(node));
                }
            }
            Some(found) => {
                let anew = made_anew(node, |id| {
                    numbers.get(id).and_then(|number: &usize| plan.changes.get(*number))
                });
                let change = |verb, reasons| Change {
                    id: node.id.clone(),
                    verb,
                    reasons,
                    wanted: Some(node.resource.clone()),
                    found: Some(found.resource.clone()),
                    needs: node.needs.clone(),
                };
                match difference::between(&node.resource, found) {
                    Difference::Replace(reasons) => plan.changes.push(change(Verb::Replace, reasons)),
                    _ if !anew.is_empty() => plan.changes.push(change(Verb::Replace, anew)),
                    Difference::Update(reasons) => plan.changes.push(change(Verb::Update, reasons)),
                    Difference::None => {}
                }
            }
        }
        if plan.changes.len() > before {
            numbers.insert(&node.id, before);
        }
    }
    plan.removals = removals(wanted, inventory, &plan.changes);
    Ok(plan)
}

/// A plan that removes everything the lab has.
#[must_use]
pub fn removal(inventory: &Inventory) -> Plan {
    Plan { strays: inventory.strays.clone(), removals: removals(&[], inventory, &[]), changes: Vec::new() }
}

/// Kinds build on one another in the order of [`Kind`]; a VLAN within a VLAN comes after that.
fn in_order(nodes: &[Node]) -> Vec<&Node> {
    let inner = |node: &Node| node.needs.iter().any(|need| need.kind == node.id.kind);
    let mut nodes: Vec<&Node> = nodes.iter().collect();
    nodes.sort_by_cached_key(|node| (node.id.kind, inner(node), &node.id.name));
    nodes
}

fn creation(node: &Node) -> Change {
    Change {
        id: node.id.clone(),
        verb: Verb::Create,
        reasons: vec!["does not exist".to_owned()],
        wanted: Some(node.resource.clone()),
        found: None,
        needs: node.needs.clone(),
    }
}

/// No routes are no resource.
pub(crate) fn is_nothing(resource: &Resource) -> bool {
    matches!(resource, Resource::Routes(routes) if routes.routes.is_empty())
}

/// Processes and domains hold on to the very link they were started with; when that is made anew, so are they. An
/// interface goes with the link below it, and a tunnel with its underlay.
fn made_anew<'a>(node: &Node, changed: impl Fn(&Id) -> Option<&'a Change>) -> Vec<String> {
    if !matches!(node.id.kind, Kind::Service | Kind::Domain | Kind::Vlan | Kind::Macvlan | Kind::Vxlan) {
        return Vec::new();
    }
    let why = |id: &Id| {
        let change = changed(id)?;
        let used = [Kind::Namespace, Kind::Bridge, Kind::Tap, Kind::Veth, Kind::Vlan, Kind::Macvlan];
        let fresh = used.contains(&id.kind) && matches!(change.verb, Verb::Create | Verb::Replace);
        if fresh {
            return Some(format!("{id}, which it uses, is made anew"));
        }
        (node.id.kind == Kind::Service && replugged(change))
            .then(|| format!("{id}, which it uses, is plugged in elsewhere"))
    };
    node.needs.iter().filter_map(why).collect()
}

/// Whether a guest's port moves to another network or VLAN.
fn replugged(change: &Change) -> bool {
    match (&change.wanted, &change.found) {
        (Some(Resource::Veth(wanted)), Some(Resource::Veth(found))) => {
            let where_to = |port: &Option<Port>| port.clone().map(|port| (port.bridge, port.attach));
            let mut ends = wanted.ends.iter().zip(&found.ends);
            ends.any(|(wanted, found)| where_to(&wanted.port) != where_to(&found.port))
        }
        _ => false,
    }
}

fn removals(wanted: &[Node], inventory: &Inventory, changes: &[Change]) -> Vec<Change> {
    let ids: HashSet<&Id> = wanted.iter().map(|node| &node.id).collect();
    let replaced: HashMap<&Id, &Change> =
        changes.iter().filter(|c| c.verb == Verb::Replace).map(|c| (&c.id, c)).collect();
    // BTreeMap order is the order of building; removal is its reverse.
    inventory
        .found
        .iter()
        .rev()
        .filter_map(|(id, found)| {
            let (verb, reasons) = match replaced.get(id) {
                Some(change) => (Verb::Replace, change.reasons.clone()),
                None if !ids.contains(id) => (Verb::Delete, vec!["is not wanted".to_owned()]),
                None => return None,
            };
            let found = Some(found.resource.clone());
            Some(Change { id: id.clone(), verb, reasons, wanted: None, found, needs: Vec::new() })
        })
        .collect()
}

/// Two links of the host with one subnet: the kernel would send to one of them what is for the other. A macvlan is on
/// the network of the link below it anyway, but two stations there cannot have one address.
fn refuse_overlap(node: &Node, wanted: &[Node], inventory: &Inventory) -> Result<()> {
    let (addresses, beside) = match &node.resource {
        Resource::Bridge(Bridge { addresses, .. })
        | Resource::Vlan(Vlan { place: Place::Host, addresses, .. }) => (addresses, false),
        Resource::Macvlan(Macvlan { addresses, .. }) => (addresses, true),
        _ => return Ok(()),
    };
    let Some(host) = inventory.places.get(&Place::Host) else { return Ok(()) };
    let found = || inventory.found.values().map(|found| &found.resource);
    let is_ours = |name: &str| {
        let all = wanted.iter().map(|node| &node.resource).chain(found());
        all.filter_map(link_of).any(|ours| ours == name)
    };
    for link in host.links.values().filter(|link| link.name != "lo") {
        for there in link.addresses.iter().chain(&link.dynamic) {
            let overlaps = |address: &&IpNetwork| match beside {
                true => address.ip() == there.ip(),
                false => address.contains(there.network()) || there.contains(address.network()),
            };
            // Few overlap, so few are looked for among all that is the lab's.
            if let Some(address) = addresses.iter().find(overlaps)
                && !is_ours(&link.name)
            {
                return Err(Error::host(format!(
                    "the host has {there} on `{}` already, but {} needs {address}{}",
                    link.name,
                    node.id,
                    if beside { "" } else { ", which overlaps with it" }
                ))
                .hint(match beside {
                    true => "choose an address that nobody has on the uplink\'s network",
                    false => "give the network another subnet, or build the lab with `netloom up --sandbox`",
                }));
            }
        }
    }
    Ok(())
}

fn link_of(resource: &Resource) -> Option<&str> {
    match resource {
        Resource::Bridge(bridge) => Some(&bridge.link),
        Resource::Vlan(Vlan { place: Place::Host, link, .. })
        | Resource::Macvlan(Macvlan { place: Place::Host, link, .. }) => Some(link),
        _ => None,
    }
}

fn refuse_taken(node: &Node, inventory: &Inventory) -> Result<()> {
    let names: Vec<String> = match &node.resource {
        Resource::Bridge(bridge) => vec![bridge.link.clone()],
        Resource::Tap(tap) => vec![tap.link.clone()],
        Resource::Vxlan(vxlan) => vec![vxlan.link.clone()],
        Resource::Vlan(Vlan { place: Place::Host, link, .. })
        | Resource::Macvlan(Macvlan { place: Place::Host, link, .. }) => vec![link.clone()],
        Resource::Veth(veth) => {
            veth.ends.iter().filter(|end| end.place == Place::Host).map(|end| end.link.clone()).collect()
        }
        Resource::Namespace(name) => vec![name.clone()],
        Resource::Domain(domain) => vec![domain_key(&domain.name)],
        _ => Vec::new(),
    };
    match names.into_iter().find(|name| inventory.taken.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let what = if name.starts_with("domain ") { name } else { format!("`{name}`") };
            Err(Error::host(format!("{what} exists and is not netloom's, but {} needs that name", node.id))
                .hint("rename or remove it, or give the lab another name; netloom does not touch what it did not make"))
        }
    }
}

#[cfg(test)]
mod tests;
