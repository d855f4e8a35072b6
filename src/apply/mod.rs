//! Walks a plan: removals first, then everything else as soon as what it needs is there. What was done is undone when
//! something fails or the user interrupts. Afterwards it is looked at again wherever something was changed: only an empty
//! plan counts.

mod order;
pub mod ready;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use order::Order;
use tokio::sync::watch;

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::host::actuator::Actuator;
use crate::host::run::Turn;
use crate::inventory::{Earlier, Found, Inventory};
use crate::plan::{self, Change, Plan, Verb};
use crate::resource::desired::NAMESPACE_SETTINGS;
use crate::resource::{Id, Kind, Node, Place, Resource, Sysctls};

/// Says what is being done, to a person.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Becomes true when the user wants to stop.
pub type Interrupt = watch::Receiver<bool>;

/// Changes under way at a time, without virtual machines, which are let in one after the other: enough for all processors, and
/// for what waits for programs. An interruption waits for no more than these.
const AT_A_TIME: usize = 32;

/// What was done, for rollback.
#[derive(Debug, Clone)]
enum Undo {
    Remove(Id, Resource),
    Restore(Id, Resource),
    ChangeBack { id: Id, now: Box<Resource>, before: Box<Resource> },
}

/// Everything that [`Run::converge`] needs.
pub struct Run<'a> {
    /// The host.
    pub actuator: &'a dyn Actuator,
    /// Progress.
    pub progress: Progress<'a>,
    /// The user's wish to stop.
    pub interrupt: Interrupt,
}

/// A converged lab, which [`Run::take_back`] can still roll back.
#[derive(Debug)]
pub struct Converged {
    /// What was changed.
    pub plan: Arc<Plan>,
    /// What exists now.
    pub inventory: Arc<Inventory>,
    undo: Vec<Undo>,
    /// What there was before.
    before: Arc<Inventory>,
}

impl Run<'_> {
    /// Brings the host to `wanted` and verifies it by looking again. A failure undoes everything this call did.
    ///
    /// # Errors
    /// Exit 3 or 4 with the first failure, or exit 130 when interrupted; in each case after rollback, and what could
    /// not be rolled back is named.
    pub async fn converge(&self, wanted: &[Node]) -> Result<Converged> {
        let mut turn = self.turn().await?;
        let (before, plan) = self.look(wanted, None).await?;
        let mut inventory = Arc::clone(&before);
        let mut undo = Vec::new();
        let mut step = Arc::clone(&plan);
        // What was changed can show a difference that was hidden before (a bridge that begins to filter shows its
        // ports' VLANs), so a few rounds are allowed.
        for round in 0..4 {
            if step.is_empty() {
                return Ok(Converged { plan, inventory, undo, before });
            }
            if round > 0 {
                (self.progress)("once more, for what showed only now");
            }
            let done = match self.apply(&step, turn.take(), &mut undo).await {
                Ok(()) => {
                    let touched = touched(&step, wanted);
                    let earlier = touched.as_ref().map(|touched| Earlier { seen: &inventory, touched });
                    self.look(wanted, earlier).await
                }
                Err(e) => Err(e),
            };
            match done {
                Ok((found, rest)) => (inventory, step) = (found, rest),
                Err(e) => return Err(self.roll_back(undo, &before, e).await),
            }
        }
        if step.is_empty() {
            return Ok(Converged { plan, inventory, undo, before });
        }
        let rest: Vec<String> = step
            .summary()
            .iter()
            .map(|s| format!("{} {} {}: {}", s.verb, s.kind, s.name, s.reasons.join(", ")))
            .collect();
        let error = Error::failed("the host does not come to what is wanted").caused_by(rest.join("; "));
        Err(self.roll_back(undo, &before, error).await)
    }

    async fn look(
        &self,
        wanted: &[Node],
        earlier: Option<Earlier<'_>>,
    ) -> Result<(Arc<Inventory>, Arc<Plan>)> {
        let inventory = self.actuator.observe_after(wanted, earlier).await?;
        let plan = plan::compare(wanted, &inventory)?;
        Ok((Arc::new(inventory), Arc::new(plan)))
    }

    /// Undoes a converged lab's changes because of `error`, which is returned with what became of the rollback.
    pub async fn take_back(&self, converged: Converged, error: Error) -> Error {
        self.roll_back(converged.undo, &converged.before, error).await
    }

    async fn turn(&self) -> Result<Option<Turn>> {
        let mut interrupt = self.interrupt.clone();
        tokio::select! {
            biased;
            () = stopped(&mut interrupt) => Err(Error::new(ErrorKind::Interrupted, "interrupted")),
            turn = self.actuator.turn() => turn,
        }
    }

    async fn apply(&self, plan: &Plan, mut turn: Option<Turn>, undo: &mut Vec<Undo>) -> Result<()> {
        if !plan.changes.iter().any(|change| is_claim(&change.id)) {
            turn = None;
        }
        for (place, link) in &plan.strays {
            (self.progress)(&format!("removing link {link}, left by a run that was cut off"));
            self.actuator.delete_stray(place, link).await?;
        }
        self.remove(&plan.removals, Some(undo)).await?;
        self.build(&plan.changes, turn, undo).await
    }

    /// Removes what a plan says, which is everything; each kind's resources side by side.
    ///
    /// # Errors
    /// The first failure; the others were still tried.
    pub async fn tear_down(&self, plan: &Plan) -> Result<()> {
        let mut first = Ok(());
        for (place, link) in &plan.strays {
            first = first.and(self.actuator.delete_stray(place, link).await);
        }
        // Uplinks take their addresses back before the bridges go. What uses links has ended when these go at once.
        let uses = |kind| matches!(kind, Kind::Domain | Kind::Service | Kind::Uplink);
        let (users, rest): (Vec<Change>, Vec<Change>) =
            plan.removals.iter().cloned().partition(|change| uses(change.id.kind));
        first = first.and(self.remove(&users, None).await);
        if first.is_ok() {
            first = self.actuator.delete_links().await;
        }
        first.and(self.remove(&rest, None).await)
    }

    async fn remove(&self, removals: &[Change], mut undo: Option<&mut Vec<Undo>>) -> Result<()> {
        let mut first = Ok(());
        for group in removals.chunk_by(|a, b| a.id.kind == b.id.kind) {
            if let Some(undo) = undo.as_deref_mut() {
                undo.extend(self.settings_of(group).await);
            }
            let work = group.iter().map(|change| async move {
                let Some(found) = &change.found else { return Ok(()) };
                (self.progress)(&format!("removing {}", change.id));
                self.actuator.delete(&change.id, found).await
            });
            for (change, result) in group.iter().zip(join_all(work).await) {
                if let (Some(undo), Some(found)) = (undo.as_deref_mut(), &change.found) {
                    undo.push(Undo::Restore(change.id.clone(), found.clone()));
                }
                first = first.and(result);
            }
            // A removal goes as far as it can; a change stops, to be undone.
            if undo.is_some() {
                first?;
                first = Ok(());
            }
        }
        first
    }

    /// Kernel settings go with their namespace and are looked at only where somebody wants them, which of a namespace
    /// that is to go nobody does: noted now, so that it can be made again as it was.
    async fn settings_of(&self, removals: &[Change]) -> Vec<Undo> {
        let nodes: Vec<Node> = removals.iter().filter_map(settings_to_note).collect();
        if nodes.is_empty() {
            return Vec::new();
        }
        let mut found = self.actuator.observe(&nodes).await.unwrap_or_default().found;
        let noted = nodes.into_iter().filter_map(|node| Some((found.remove(&node.id)?, node.id)));
        noted.map(|(found, id)| Undo::Restore(id, found.resource)).collect()
    }

    async fn build(&self, changes: &[Change], mut turn: Option<Turn>, undo: &mut Vec<Undo>) -> Result<()> {
        let mut order = Order::new(changes, is_claim);
        let mut claims = changes.iter().filter(|change| is_claim(&change.id)).count();
        let mut running = FuturesUnordered::new();
        let mut interrupt = self.interrupt.clone();
        let mut failure = None;
        let mut busy = 0;
        // After a failure nothing begins any more, also of what waits for its turn.
        let (close, closed) = watch::channel(false);
        loop {
            if failure.is_some() {
                let _ = close.send(true);
            }
            while failure.is_none() && busy < AT_A_TIME {
                let Some(number) = order.next() else { break };
                let change = &changes[number];
                busy += usize::from(!takes_turns(&change.id));
                undo.extend(undo_of(change));
                let closed = closed.clone();
                running.push(async move { (number, self.perform(change, closed).await) });
            }
            tokio::select! {
                biased;
                () = stopped(&mut interrupt), if failure.is_none() => {
                    failure = Some(Error::new(ErrorKind::Interrupted, "interrupted"));
                }
                done = running.next() => match done {
                    None => break,
                    Some((number, Ok(()))) => {
                        busy -= usize::from(!takes_turns(&changes[number].id));
                        order.done(number);
                        claims -= usize::from(is_claim(&changes[number].id));
                        turn = turn.filter(|_| claims > 0);
                    }
                    Some((number, Err(e))) => { failure.get_or_insert_with(|| in_context(&changes[number], e)); }
                },
            }
        }
        match failure {
            Some(e) => Err(e),
            None => match order.waits() {
                None => Ok(()),
                Some(number) => {
                    let id = &changes[number].id;
                    Err(Error::failed(format!("{id} waits for something that nobody makes")))
                }
            },
        }
    }

    /// Carries out a change, unless it is still waiting to begin when no more are to begin.
    async fn perform(&self, change: &Change, mut closed: watch::Receiver<bool>) -> Result<()> {
        let Some(wanted) = &change.wanted else { return Ok(()) };
        match (change.verb, &change.found) {
            (Verb::Update, Some(found)) => {
                (self.progress)(&format!("changing {}: {}", change.id, change.reasons.join(", ")));
                self.actuator.change(&change.id, wanted, found).await
            }
            _ => {
                tokio::select! {
                    biased;
                    () = stopped(&mut closed) => return Ok(()),
                    () = self.actuator.admit(&change.id, wanted) => {}
                }
                if change.id.kind == Kind::Domain {
                    (self.progress)(&format!("starting {}", change.id));
                } else {
                    (self.progress)(&format!("creating {}", change.id));
                }
                self.actuator.create(&change.id, wanted).await
            }
        }
    }

    /// Backwards, and again and again until a look shows that all is as it was, or that no more can be done: the step
    /// that failed may have done nothing, all of its work or half, and what was removed first (a guest's ruleset goes with
    /// its namespace, a port stays when its bridge goes) may need what was removed later. What this run never touched itself
    /// may have gone along with something else, as routes go with their link: it is made again as it was `before`.
    async fn roll_back(&self, undo: Vec<Undo>, before: &Inventory, error: Error) -> Error {
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
            // Without a look, what was meant to be there has to do.
            let looked = self.actuator.observe(&nodes).await.ok();
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

/// Where a step can have changed anything: where its resources are, and what stands on a link that it changed. `None` is
/// anywhere, for a link or a namespace that is removed takes others along.
fn touched(step: &Plan, wanted: &[Node]) -> Option<BTreeSet<Place>> {
    let carries = |id: &Id| !matches!(id.kind, Kind::Ruleset | Kind::Sysctls | Kind::Routes | Kind::Service);
    if !step.strays.is_empty() || step.removals.iter().any(|change| carries(&change.id)) {
        return None;
    }
    let changed: BTreeSet<&Id> =
        step.changes.iter().map(|change| &change.id).filter(|id| carries(id)).collect();
    let on_them = wanted.iter().filter(|node| node.needs.iter().any(|id| changed.contains(id)));
    let all = step.removals.iter().chain(&step.changes);
    let resources = all.flat_map(|change| change.wanted.iter().chain(&change.found));
    Some(resources.chain(on_them.map(|node| &node.resource)).flat_map(Resource::places).collect())
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
fn undo_of(change: &Change) -> Option<Undo> {
    let wanted = change.wanted.clone()?;
    Some(match (change.verb, change.found.clone()) {
        (Verb::Update, Some(before)) => {
            Undo::ChangeBack { id: change.id.clone(), now: Box::new(wanted), before: Box::new(before) }
        }
        _ => Undo::Remove(change.id.clone(), wanted),
    })
}

/// Whether it takes what no other lab may have then: a port or an address of the host, an uplink.
fn is_claim(id: &Id) -> bool {
    matches!(id.kind, Kind::Ruleset | Kind::Bridge | Kind::Uplink | Kind::Vlan | Kind::Macvlan)
}

/// Whether it waits until it is admitted: others do not wait behind it.
fn takes_turns(id: &Id) -> bool {
    id.kind == Kind::Domain
}

fn in_context(change: &Change, error: Error) -> Error {
    error.context(format!("cannot {} {}", change.verb, change.id))
}

/// Waits until the user wants to stop; for ever if nobody can say so.
pub async fn stopped(interrupt: &mut Interrupt) {
    if interrupt.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
