//! The lab's namespaces, each looked at in one visit: its links, the names of its tables, and the settings that are asked
//! for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Earlier, Inventory, Sources};
use crate::error::Result;
use crate::host::links::{self, PlaceState};
use crate::host::{netns, nft, sysctl};
use crate::resource::{Id, Kind, Node, Place, Resource, Routes, RulesetFamily, Sysctls, names};

/// What a visit to a namespace of the lab shows.
pub(super) struct Visit {
    /// Name of its guest or router.
    pub(super) node: String,
    /// The namespace.
    pub(super) place: Place,
    /// Families and names of its tables.
    pub(super) tables: Vec<(RulesetFamily, String)>,
    /// Settings as they are, by resource.
    pub(super) settings: Vec<(Id, Sysctls)>,
}

/// The same as far as it came.
struct Look {
    state: Result<PlaceState>,
    tables: Result<Vec<(RulesetFamily, String)>>,
    settings: Vec<(Id, Sysctls)>,
}

impl Earlier<'_> {
    /// Whether it shows this namespace, in which nothing was changed since.
    fn holds(&self, name: &str) -> bool {
        let place = Place::Netns(name.to_owned());
        self.seen.places.contains_key(&place) && !self.touched.places.contains(&place)
    }
}

impl Inventory {
    /// The namespaces of the lab and their state; those that were visited are told. `aside` is done besides.
    pub(super) fn namespaces<A: Send>(
        &mut self,
        sources: &Sources<'_>,
        wanted: &[Node],
        earlier: Option<Earlier<'_>>,
        aside: impl FnOnce() -> A + Send,
    ) -> (A, Result<Vec<Visit>>) {
        let mut nodes = Vec::new();
        let mut ours = Vec::new();
        let mut as_before = BTreeSet::new();
        for name in netns::list() {
            match names::read_netns(&name) {
                Some((lab, _)) if lab == sources.lab && earlier.is_some_and(|e| e.holds(&name)) => {
                    as_before.insert(Place::Netns(name));
                }
                Some((lab, node)) if lab == sources.lab => {
                    nodes.push(node.to_owned());
                    ours.push(name);
                }
                _ => drop(self.taken.insert(name)),
            }
        }
        if let Some(earlier) = earlier {
            self.take_over(earlier.seen, &as_before);
        }
        let settings = settings_by_namespace(wanted);
        let look = |name: &str| Look {
            state: links::look_here(name),
            tables: nft::tables::here(),
            settings: settings.get(name).into_iter().flatten().map(|(id, wanted)| read(id, wanted)).collect(),
        };
        let (aside, looks) = netns::each(&ours, look, aside);
        let visits = looks.and_then(|looks| {
            let looked = nodes.into_iter().zip(ours).zip(looks);
            let visits = looked.map(|((node, name), look)| self.namespace(node, name, look));
            visits.filter_map(Result::transpose).collect()
        });
        (aside, visits)
    }

    /// What was seen in these namespaces, but for links: they follow from the places.
    fn take_over(&mut self, seen: &Inventory, as_before: &BTreeSet<Place>) {
        let places = seen.places.iter().filter(|(place, _)| as_before.contains(place));
        self.places.extend(places.map(|(place, state)| (place.clone(), state.clone())));
        let of_place = |resource: &Resource| match resource {
            Resource::Namespace(_) | Resource::Routes(_) | Resource::Sysctls(_) | Resource::Ruleset(_) => {
                resource.places().iter().all(|place| as_before.contains(place))
            }
            _ => false,
        };
        let found = seen.found.iter().filter(|(_, found)| of_place(&found.resource));
        self.found.extend(found.map(|(id, found)| (id.clone(), found.clone())));
    }

    fn namespace(&mut self, node: String, name: String, look: Result<Look>) -> Result<Option<Visit>> {
        let id = Id::new(Kind::Namespace, &node);
        let place = Place::Netns(name.clone());
        let looked = look.and_then(|Look { state, tables, settings }| Ok((state?, tables, settings)));
        let (state, tables, settings) = match looked {
            Ok(seen) => seen,
            // It is there: what kept us from looking says nothing against it.
            Err(e) if netns::is_bound(&name) => return Err(e),
            // A file without a namespace behind it is left when a run is cut off between the two.
            Err(e) => {
                let defects = vec![format!("cannot be entered ({e})")];
                self.add(id, Resource::Namespace(name), defects, None);
                return Ok(None);
            }
        };
        let routes = Routes { place: place.clone(), routes: state.routes.clone() };
        if !routes.routes.is_empty() {
            self.add(Id::new(Kind::Routes, &node), Resource::Routes(routes), Vec::new(), None);
        }
        self.places.insert(place.clone(), state);
        self.add(id, Resource::Namespace(name), Vec::new(), None);
        Ok(Some(Visit { node, place, tables: tables?, settings }))
    }
}

/// The settings that are asked for in namespaces.
fn settings_by_namespace(wanted: &[Node]) -> BTreeMap<&str, Vec<(&Id, &Sysctls)>> {
    let mut all: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for node in wanted {
        if let Resource::Sysctls(settings) = &node.resource
            && let Place::Netns(name) = &settings.place
        {
            all.entry(name).or_default().push((&node.id, settings));
        }
    }
    all
}

fn read(id: &Id, wanted: &Sysctls) -> (Id, Sysctls) {
    (id.clone(), Sysctls { place: wanted.place.clone(), values: sysctl::read(wanted) })
}
