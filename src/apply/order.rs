//! Which change begins next, of those whose needs are there.

use std::collections::{HashMap, VecDeque};

use crate::plan::Change;
use crate::resource::{Id, Kind};

/// Changes by number, and what each still waits for.
pub(super) struct Order<'a> {
    changes: &'a [Change],
    /// What goes before everything else when its needs are there.
    urgent: fn(&Id) -> bool,
    /// How many changes each waits for.
    waits: Vec<usize>,
    /// Who waits for each.
    dependents: Vec<Vec<usize>>,
    /// What waited for nothing, and what is urgent.
    first: VecDeque<usize>,
    /// What else is ready; the newest goes first.
    rest: Vec<usize>,
}

impl<'a> Order<'a> {
    /// Needs that no change brings are there already.
    pub(super) fn new(changes: &'a [Change], urgent: fn(&Id) -> bool) -> Self {
        let numbers: HashMap<&Id, usize> =
            changes.iter().enumerate().map(|(number, change)| (&change.id, number)).collect();
        let (mut waits, mut dependents) = (Vec::new(), vec![Vec::new(); changes.len()]);
        for (number, change) in changes.iter().enumerate() {
            let needs = change.needs.iter().filter_map(|need| numbers.get(need).copied());
            waits.push(needs.map(|need: usize| dependents[need].push(number)).count());
        }
        let first = by_turns(changes, (0..changes.len()).filter(|number| waits[*number] == 0));
        Self { changes, urgent, waits, dependents, first, rest: Vec::new() }
    }

    /// What begins next: what waited for nothing, one of each kind in turn, and what is urgent as soon as it can; then
    /// each guest to its end. So threads do different things: most of what is asked about links excludes one another in the
    /// kernel, and most of the rest does not.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.first.pop_front().or_else(|| self.rest.pop())
    }

    /// Those that waited for this one last are ready.
    pub(super) fn done(&mut self, number: usize) {
        for dependent in std::mem::take(&mut self.dependents[number]) {
            self.waits[dependent] -= 1;
            match self.waits[dependent] {
                0 if (self.urgent)(&self.changes[dependent].id) => self.first.push_front(dependent),
                0 => self.rest.push(dependent),
                _ => {}
            }
        }
    }

    /// One that still waits.
    pub(super) fn waits(&self) -> Option<usize> {
        self.waits.iter().position(|open| *open > 0)
    }
}

/// One of each kind in turn, else in the plan's order.
fn by_turns(changes: &[Change], numbers: impl Iterator<Item = usize>) -> VecDeque<usize> {
    let mut counts: HashMap<Kind, usize> = HashMap::new();
    let turn = |number: usize| {
        let count = counts.entry(changes[number].id.kind).or_default();
        *count += 1;
        (*count, number)
    };
    let mut turns: Vec<(usize, usize)> = numbers.map(turn).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verb;

    const GUEST: Kind = Kind::Namespace;

    fn change(kind: Kind, name: &str, needs: &[(Kind, &str)]) -> Change {
        Change {
            id: Id::new(kind, name),
            verb: Verb::Create,
            reasons: Vec::new(),
            found: None,
            wanted: None,
            needs: needs.iter().map(|(kind, name)| Id::new(*kind, *name)).collect(),
        }
    }

    fn order(changes: &[Change]) -> Order<'_> {
        Order::new(changes, |id| id.kind == Kind::Macvlan)
    }

    fn ready(order: &mut Order<'_>) -> Vec<usize> {
        std::iter::from_fn(|| order.next()).collect()
    }

    #[test]
    fn each_waits_for_all_of_its_needs() {
        let changes = [
            change(GUEST, "last", &[(GUEST, "left"), (GUEST, "right"), (GUEST, "left")]),
            change(GUEST, "left", &[(GUEST, "first"), (GUEST, "there already")]),
            change(GUEST, "first", &[]),
            change(GUEST, "right", &[(GUEST, "first")]),
        ];
        let mut order = order(&changes);
        assert_eq!(ready(&mut order), [2]);
        order.done(2);
        assert_eq!(ready(&mut order), [3, 1]);
        order.done(3);
        assert!(ready(&mut order).is_empty());
        assert_eq!(order.waits(), Some(0));
        order.done(1);
        assert_eq!(ready(&mut order), [0]);
        order.done(0);
        assert!(ready(&mut order).is_empty());
        assert_eq!(order.waits(), None);
    }

    #[test]
    fn kinds_take_turns() {
        let bridge = |name| change(Kind::Bridge, name, &[]);
        let guest = |name| change(GUEST, name, &[]);
        let changes = [guest("a"), guest("b"), guest("c"), bridge("a"), bridge("b")];
        assert_eq!(ready(&mut order(&changes)), [0, 3, 1, 4, 2]);
    }

    /// Others wait for a lab to have its claims: what takes long must not begin before them.
    #[test]
    fn what_is_urgent_begins_before_what_was_ready_earlier() {
        let changes = [
            change(GUEST, "a", &[]),
            change(GUEST, "b", &[]),
            change(Kind::Macvlan, "claim", &[(GUEST, "a")]),
            change(Kind::Domain, "slow", &[(GUEST, "a")]),
        ];
        let mut order = order(&changes);
        assert_eq!(order.next(), Some(0));
        order.done(0);
        assert_eq!(ready(&mut order), [2, 1, 3]);
    }

    #[test]
    fn who_waits_in_a_circle_never_begins() {
        let changes = [
            change(GUEST, "a", &[(GUEST, "b")]),
            change(GUEST, "b", &[(GUEST, "a")]),
            change(GUEST, "c", &[]),
        ];
        let mut order = order(&changes);
        assert_eq!(ready(&mut order), [2]);
        order.done(2);
        assert!(ready(&mut order).is_empty());
        assert_eq!(order.waits(), Some(0));
    }
}
