//! Which changes may begin: those whose needs are there.

use std::collections::HashMap;

use crate::plan::Change;
use crate::resource::{Id, Kind};

/// Changes by number, and what each still waits for.
pub(super) struct Order {
    /// How many changes each waits for; `None` once it was handed out.
    waits: Vec<Option<usize>>,
    /// Who waits for each.
    dependents: Vec<Vec<usize>>,
}

impl Order {
    /// Needs that no change brings are there already.
    pub(super) fn new(changes: &[Change]) -> Self {
        let numbers: HashMap<&Id, usize> =
            changes.iter().enumerate().map(|(number, change)| (&change.id, number)).collect();
        let mut order = Self { waits: Vec::new(), dependents: vec![Vec::new(); changes.len()] };
        for (number, change) in changes.iter().enumerate() {
            let needs: Vec<usize> =
                change.needs.iter().filter_map(|need| numbers.get(need).copied()).collect();
            order.waits.push(Some(needs.len()));
            for need in needs {
                order.dependents[need].push(number);
            }
        }
        order
    }

    /// Those that wait for nothing: one of each kind in turn, else in the plan's order.
    pub(super) fn first(&mut self, changes: &[Change]) -> Vec<usize> {
        let all = 0..self.waits.len();
        let ready = self.ready(all);
        let mut counts: HashMap<Kind, usize> = HashMap::new();
        let mut turns: Vec<(usize, usize)> = ready
            .into_iter()
            .map(|number| {
                let count = counts.entry(changes[number].id.kind).or_default();
                *count += 1;
                (*count, number)
            })
            .collect();
        turns.sort_unstable();
        turns.into_iter().map(|(_, number)| number).collect()
    }

    /// Those that waited for this one last.
    pub(super) fn done(&mut self, number: usize) -> Vec<usize> {
        let dependents = std::mem::take(&mut self.dependents[number]);
        for dependent in &dependents {
            self.waits[*dependent] = self.waits[*dependent].map(|open| open - 1);
        }
        self.ready(dependents.into_iter())
    }

    /// One that was never ready.
    pub(super) fn waits(&self) -> Option<usize> {
        self.waits.iter().position(Option::is_some)
    }

    fn ready(&mut self, numbers: impl Iterator<Item = usize>) -> Vec<usize> {
        numbers.filter(|number| self.waits[*number].take_if(|open| *open == 0).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verb;

    fn change(name: &str, needs: &[&str]) -> Change {
        let id = |name: &str| Id::new(Kind::Namespace, name);
        Change {
            id: id(name),
            verb: Verb::Create,
            reasons: Vec::new(),
            found: None,
            wanted: None,
            needs: needs.iter().map(|need| id(need)).collect(),
        }
    }

    #[test]
    fn each_waits_for_all_of_its_needs() {
        let changes = [
            change("last", &["left", "right", "left"]),
            change("left", &["first", "there already"]),
            change("first", &[]),
            change("right", &["first"]),
        ];
        let mut order = Order::new(&changes);
        assert_eq!(order.first(&changes), [2]);
        assert_eq!(order.done(2), [1, 3]);
        assert!(order.done(3).is_empty());
        assert_eq!(order.waits(), Some(0));
        assert_eq!(order.done(1), [0]);
        assert!(order.done(0).is_empty());
        assert_eq!(order.waits(), None);
    }

    #[test]
    fn kinds_take_turns() {
        let of = |kind, name: &str| Change { id: Id::new(kind, name), ..change(name, &[]) };
        let (bridge, netns) = (Kind::Bridge, Kind::Namespace);
        let changes = [of(netns, "a"), of(netns, "b"), of(netns, "c"), of(bridge, "a"), of(bridge, "b")];
        assert_eq!(Order::new(&changes).first(&changes), [0, 3, 1, 4, 2]);
    }

    #[test]
    fn who_waits_in_a_circle_never_begins() {
        let changes = [change("a", &["b"]), change("b", &["a"]), change("c", &[])];
        let mut order = Order::new(&changes);
        assert_eq!(order.first(&changes), [2]);
        assert!(order.done(2).is_empty());
        assert_eq!(order.waits(), Some(0));
    }
}
