//! Walks a plan: removals first, then everything else as soon as what it needs is there. What was done is undone when
//! something fails or the user interrupts. Afterwards it is looked at again wherever something was changed: only an empty
//! plan counts.

mod order;
pub mod ready;
mod rollback;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use order::Order;
use rollback::{Undo, undo_of};
use tokio::sync::watch;

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::host::actuator::Actuator;
use crate::host::run::Turn;
use crate::inventory::{Earlier, Inventory, Touched};
use crate::plan::{self, Change, Plan, Verb};
use crate::resource::{Id, Kind, Node, Place, Resource};

/// Says what is being done, to a person.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Becomes true when the user wants to stop.
pub type Interrupt = watch::Receiver<bool>;

/// Changes under way at a time, without virtual machines, which are let in one after the other: enough for all processors, and
/// for what waits for programs. An interruption waits for no more than these.
const AT_A_TIME: usize = 32;

/// Everything that [`Run::converge`] needs.
pub struct Run<'a> {
    /// The host.
    pub actuator: &'a dyn Actuator,
    /// Progress.
    pub progress: Progress<'a>,
    /// The user's wish to stop.
    pub interrupt: Interrupt,
}

/// A run that has its turn.
pub struct Begun(Option<Turn>);

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
        let begun = self.begin().await?;
        self.converge_from(begun, wanted).await
    }

    /// Takes its turn, and lets the look begin for which nothing has to be wanted yet.
    ///
    /// # Errors
    /// When others do not let go, or exit 130 when interrupted.
    pub async fn begin(&self) -> Result<Begun> {
        let turn = self.turn().await?;
        self.actuator.look_ahead();
        Ok(Begun(turn))
    }

    /// As [`Run::converge`], once it was begun.
    ///
    /// # Errors
    /// As there.
    pub async fn converge_from(&self, begun: Begun, wanted: &[Node]) -> Result<Converged> {
        let Begun(mut turn) = begun;
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
                    () = self.actuator.admit(wanted) => {}
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
}

/// Where a step can have changed anything: where its resources are, and what stands on a link that it changed. `None` is
/// anywhere, for a link or a namespace that is removed takes others along.
fn touched(step: &Plan, wanted: &[Node]) -> Option<Touched> {
    let carries = |id: &Id| !matches!(id.kind, Kind::Ruleset | Kind::Sysctls | Kind::Routes | Kind::Service);
    if !step.strays.is_empty() || step.removals.iter().any(|change| carries(&change.id)) {
        return None;
    }
    let changed: BTreeSet<&Id> =
        step.changes.iter().map(|change| &change.id).filter(|id| carries(id)).collect();
    let on_them = wanted.iter().filter(|node| node.needs.iter().any(|id| changed.contains(id)));
    let all = step.removals.iter().chain(&step.changes);
    let resources = all.flat_map(|change| change.wanted.iter().chain(&change.found));
    let resources: Vec<&Resource> = resources.chain(on_them.map(|node| &node.resource)).collect();
    let at_host = |r: &&Resource| matches!(r, Resource::Ruleset(ruleset) if ruleset.place == Place::Host);
    let links: Option<Vec<Vec<&str>>> = resources.iter().map(|resource| resource.host_links()).collect();
    Some(Touched {
        places: resources.iter().flat_map(|resource| resource.places()).collect(),
        links: links.map(|links| links.into_iter().flatten().map(str::to_owned).collect()),
        tables: resources.iter().any(at_host),
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
