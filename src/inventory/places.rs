//! The lab's namespaces, each looked at in one visit: its links, the names of its tables, and the settings that are asked
//! for.

use std::collections::BTreeMap;

use super::{Inventory, Sources};
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

impl Inventory {
    /// The state of every place, and the namespaces of the lab: those that could be entered are told.
    pub(super) async fn namespaces(&mut self, sources: &Sources<'_>, wanted: &[Node]) -> Result<Vec<Visit>> {
        self.places.insert(Place::Host, sources.links.observe(&Place::Host).await?);
        let mut nodes = Vec::new();
        let mut ours = Vec::new();
        for name in netns::list() {
            match names::read_netns(&name) {
                Some((lab, node)) if lab == sources.lab => {
                    nodes.push(node.to_owned());
                    ours.push(name);
                }
                _ => drop(self.taken.insert(name)),
            }
        }
        let settings = settings_by_namespace(wanted);
        let looks = netns::each(&ours, |name| Look {
            state: links::look_here(name),
            tables: nft::tables::here(),
            settings: settings.get(name).into_iter().flatten().map(|(id, wanted)| read(id, wanted)).collect(),
        })?;
        let mut visits = Vec::new();
        for ((node, name), look) in nodes.into_iter().zip(ours).zip(looks) {
            visits.extend(self.namespace(node, name, look)?);
        }
        Ok(visits)
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
