//! What is compared: every construct with a contract, and of those whose promise depends on a choice, every choice.

use super::speed::{FORWARDED, PORT};
use super::{Outcome, Row};
use crate::error::{Error, Result};
use crate::mode::example::{GUESTS, example, example_with};
use crate::mode::{self, Contract, Direction, Mode, Promise, State};
use crate::spec::suggest;

/// One construct in one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// The construct.
    pub mode: &'static Mode,
    /// What it promises.
    pub contract: &'static Contract,
    /// Which side of what depends; `None` where nothing does.
    pub state: Option<&'static State>,
    /// Position of the state among its construct's.
    pub index: usize,
}

/// Every case, in the order of the modes.
pub fn all() -> impl Iterator<Item = Case> {
    mode::all().filter_map(|mode| Some((mode, mode.contract.as_ref()?))).flat_map(|(mode, contract)| {
        let case = move |index, state| Case { mode, contract, state, index };
        let one = contract.states.is_empty().then(|| case(0, None));
        let each = contract.states.iter().enumerate().map(move |(index, state)| case(index, Some(state)));
        one.into_iter().chain(each)
    })
}

/// The cases of these constructs: `vmware/nat`, or a system's name such as `vmware`; all, when none is named.
///
/// # Errors
/// Exit 2 for a name that is neither.
pub fn select(names: &[String]) -> Result<Vec<Case>> {
    let system = |case: &Case| case.mode.id.split('/').next().unwrap_or_default();
    for name in names {
        if !all().any(|case| case.mode.id == name || system(&case) == name) {
            let mut known: Vec<&str> = all().flat_map(|case| [case.mode.id, system(&case)]).collect();
            known.dedup();
            let hint = suggest::did_you_mean(name, known).unwrap_or_else(|| {
                let mut systems: Vec<&str> = all().map(|case| system(&case)).collect();
                systems.dedup();
                format!("the systems are: {}; `netloom modes` lists their constructs", systems.join(", "))
            });
            return Err(Error::input(format!("there is no construct or system `{name}`")).hint(hint));
        }
    }
    let wanted = |case: &Case| {
        names.is_empty() || names.iter().any(|name| case.mode.id == name || system(case) == name)
    };
    Ok(all().filter(wanted).collect())
}

/// The case of a construct in the state with this position.
///
/// # Errors
/// Exit 2 when there is none.
pub fn find(construct: &str, index: usize) -> Result<Case> {
    all()
        .find(|case| case.mode.id == construct && case.index == index)
        .ok_or_else(|| Error::input(format!("construct `{construct}` has no state {index}")))
}

impl Case {
    /// Name of the lab that shows it: `proxmox-sdn-simple-2`.
    #[must_use]
    pub fn lab(&self) -> String {
        let name = self.mode.id.replace('/', "-");
        if self.index == 0 { name } else { format!("{name}-{}", self.index + 1) }
    }

    /// Its row, with nothing measured yet.
    #[must_use]
    pub fn row(&self) -> Row {
        Row {
            construct: self.mode.id.to_owned(),
            alias: self.mode.alias.to_owned(),
            state: self.state.map(|state| state.label.to_owned()),
            guests: String::new(),
            note: self.contract.note.to_owned(),
            source: self.contract.source.to_owned(),
            first_look: None,
            outcome: Outcome::Failed("it was not measured".to_owned()),
            cells: Vec::new(),
            speed: Vec::new(),
            seconds: 0.0,
        }
    }

    /// A file that shows it.
    #[must_use]
    pub fn example(&self) -> String {
        self.renamed(&example(self.mode, self.state))
    }

    /// The same file with one forward more, for what measures speed, where the mode has forwards.
    #[must_use]
    pub fn example_for_speed(&self) -> String {
        let forward = format!("{{ service: tcp/{FORWARDED}, to: \"{}:{PORT}\" }}", GUESTS[0]);
        self.renamed(&example_with(self.mode, self.state, &[&forward]))
    }

    /// States of one construct are labs of their own.
    fn renamed(&self, text: &str) -> String {
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        format!("lab: {}\n{rest}", self.lab())
    }

    /// Whether the host holds an address that guests find on the network.
    #[must_use]
    pub fn host_address(&self) -> bool {
        self.state.map_or(self.contract.host_address, |state| self.contract.host_address_in(state))
    }

    /// What it promises of a direction.
    #[must_use]
    pub fn promise(&self, direction: Direction) -> Promise {
        let cells = self.state.map_or(&self.contract.cells, |state| &state.cells);
        let position = Direction::ALL.iter().position(|one| *one == direction).unwrap_or_default();
        cells[position]
    }

    /// Whether that promise is netloom's reading.
    #[must_use]
    pub fn inferred(&self, direction: Direction) -> bool {
        self.contract.inferred.contains(&direction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_promises_something_and_has_a_lab_of_its_own() {
        let mut labs = Vec::new();
        for case in all() {
            for direction in Direction::ALL {
                assert_ne!(case.promise(direction), Promise::Depends, "{}: {direction:?}", case.mode.id);
            }
            let lab = case.lab();
            assert!(lab.len() <= 32, "{lab}");
            assert!(!labs.contains(&lab), "{lab}");
            labs.push(lab);
        }
    }

    #[test]
    fn names_are_constructs_or_systems() {
        let some = |names: &[&str]| select(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(some(&[]).unwrap().len(), all().count());
        let system = some(&["virtualbox"]).unwrap();
        assert!(system.iter().all(|case| case.mode.id.starts_with("virtualbox/")));
        let error = some(&["virtualbox/nta"]).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::Input);
        assert!(error.report().contains("`virtualbox/nat`"), "{}", error.report());
    }
}
