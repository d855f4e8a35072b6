//! Undoes what a run did, until a look shows that all is as it was before.

use std::collections::BTreeSet;

use super::Run;
use crate::error::{Error, Result};
use crate::inventory::{Found, Inventory};
use crate::plan::{self, Change, Verb};
use crate::resource::desired::NAMESPACE_SETTINGS;
use crate::resource::{Id, Kind, Node, Place, Resource, Sysctls};

/// What was done, for rollback.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    Remove(Id, Resource),
    Restore(Id, Resource),
    ChangeBack { id: Id, now: Box<Resource>, before: Box<Resource> },
}

impl Run<'_> {
    /// Kernel settings go with their namespace and are looked at only where somebody wants them, which of a namespace
    /// that is to go nobody does: noted now, so that it can be made again as it was.
    pub(super) async fn settings_of(&self, removals: &[Change]) -> Vec<Undo> {
        let nodes: Vec<Node> = removals.iter().filter_map(settings_to_note).collect();
        if nodes.is_empty() {
            return Vec::new();
        }
        let mut found = self.actuator.observe(&nodes).await.unwrap_or_default().found;
        let noted = nodes.into_iter().filter_map(|node| Some((found.remove(&node.id)?, node.id)));
        noted.map(|(found, id)| Undo::Restore(id, found.resource)).collect()
    }

    /// Backwards, and again and again until a look shows that all is as it was, or that no more can be done: the step
    /// that failed may have done nothing, all of its work or half, and what was removed first (a guest's ruleset goes with
    /// its namespace, a port stays when its bridge goes) may need what was removed later. What this run never touched itself
    /// may have gone along with something else, as routes go with their link: it is made again as it was `before`.
    pub(super) async fn roll_back(&self, undo: Vec<Undo>, before: &Inventory, error: Error) -> Error {
        (self.progress)("rolling back");
        // What was first done to a thing tells what it was before all of it.
        let mut seen = BTreeSet::new();
        let mut undo: Vec<Undo> = undo.into_iter().filter(|step| seen.insert(step.id().clone())).collect();
        undo.reverse();
        let untouched = before.found.iter().filter(|(id, _)| !seen.contains(id) && id.kind != Kind::Domain);
        let untouched: Vec<(&Id, &Found)> = untouched.collect();
        let noted = untouched.iter().filter_map(|(id, found)| settings_node(id, &found.resource));
        let nodes: Vec<Node> = undo.iter().filter_map(settings).chain(noted).collect();
        let mut says = Vec::new();
        let mut open = None;
        loop {
            // A look can fail of what was left unfinished before, and that once. Without any, what was meant to be there has to do.
            let looked = match self.actuator.observe(&nodes).await {
                Err(_) => self.actuator.observe(&nodes).await.ok(),
                looked => looked.ok(),
            };
            let lost = |(id, found): &(&Id, &Found)| {
                looked.as_ref().is_some_and(|now| now.found.get(id) != Some(found))
            };
            let lost: Vec<Undo> = untouched
                .iter()
                .copied()
                .filter(lost)
                .map(|(id, found)| Undo::Restore(id.clone(), found.resource.clone()))
                .collect();
            if open.is_some()
                && let Some(now) = &looked
            {
                undo.retain(|step| !step.is_done(now));
            }
            let now = looked.unwrap_or_default();
            let left = undo.len() + lost.len();
            if left == 0 {
                return error;
            }
            // A pass that brought nothing nearer is the last one.
            if open == Some(left) {
                return says.into_iter().fold(error, Error::caused_by);
            }
            open = Some(left);
            says.clear();
            for (place, link) in &now.strays {
                if let Err(e) = self.actuator.delete_stray(place, link).await {
                    says.push(format!("link {link} could not be removed: {e}"));
                }
            }
            for step in undo.iter().chain(&lost) {
                if let Err((id, e)) = self.undo(step, &now).await {
                    says.push(format!("{id} could not be rolled back: {e}"));
                }
            }
        }
    }

    async fn undo<'a>(&self, step: &'a Undo, now: &Inventory) -> Result<(), (&'a Id, Error)> {
        let (id, done) = match step {
            Undo::Remove(id, resource) => {
                let found = now.found.get(id).map_or(resource, |found| &found.resource);
                (id, self.actuator.delete(id, found).await)
            }
            Undo::Restore(id, resource) => (id, self.restore(id, resource, now.found.get(id)).await),
            Undo::ChangeBack { id, now: meant, before } => {
                let found = now.found.get(id).map_or(&**meant, |found| &found.resource);
                (id, self.actuator.change(id, before, found).await)
            }
        };
        done.map_err(|e| (id, e))
    }

    /// Makes again what was removed, or was to be.
    async fn restore(&self, id: &Id, resource: &Resource, now: Option<&Found>) -> Result<()> {
        if let Some(found) = now {
            if is_same(resource, found) {
                return Ok(());
            }
            self.actuator.delete(id, &found.resource).await?;
        }
        self.actuator.create(id, resource).await
    }
}

fn settings_to_note(change: &Change) -> Option<Node> {
    let Some(Resource::Namespace(name)) = &change.found else { return None };
    let values = NAMESPACE_SETTINGS.map(|path| (path.to_owned(), String::new())).into();
    let resource = Resource::Sysctls(Sysctls { place: Place::Netns(name.clone()), values });
    Some(Node { id: Id::new(Kind::Sysctls, &change.id.name), resource, needs: Vec::new() })
}

impl Undo {
    fn id(&self) -> &Id {
        match self {
            Undo::Remove(id, _) | Undo::Restore(id, _) | Undo::ChangeBack { id, .. } => id,
        }
    }

    /// Whether a thing is what it was before.
    fn is_done(&self, now: &Inventory) -> bool {
        let found = now.found.get(self.id());
        match self {
            Undo::Remove(..) => found.is_none(),
            Undo::Restore(_, before) => found.is_some_and(|found| is_same(before, found)),
            Undo::ChangeBack { before, .. } => found.is_some_and(|found| is_same(before, found)),
        }
    }
}

fn is_same(before: &Resource, found: &Found) -> bool {
    let same = match plan::digest(before) {
        Some(digest) => found.digest.as_ref() == Some(&digest),
        None => found.resource == *before,
    };
    same && found.defects.is_empty()
}

/// Settings are looked at only where somebody wants them.
fn settings(step: &Undo) -> Option<Node> {
    match step {
        Undo::Remove(id, resource) | Undo::Restore(id, resource) => settings_node(id, resource),
        Undo::ChangeBack { id, now, .. } => settings_node(id, now),
    }
}

fn settings_node(id: &Id, resource: &Resource) -> Option<Node> {
    let node = || Node { id: id.clone(), resource: resource.clone(), needs: Vec::new() };
    matches!(resource, Resource::Sysctls(_)).then(node)
}

/// The removal half of a replacement is recorded as such; this is the other half.
pub(super) fn undo_of(change: &Change) -> Option<Undo> {
    let wanted = change.wanted.clone()?;
    Some(match (change.verb, change.found.clone()) {
        (Verb::Update, Some(before)) => {
            Undo::ChangeBack { id: change.id.clone(), now: Box::new(wanted), before: Box::new(before) }
        }
        _ => Undo::Remove(change.id.clone(), wanted),
    })
}
