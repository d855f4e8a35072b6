#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::example::example;
use super::*;
use crate::topology::{LoadOptions, load};

/// The state that needs no key, and every other.
fn states(mode: &Mode) -> Vec<Option<&'static State>> {
    let states = mode.contract.map_or(&[][..], |contract| contract.states);
    if states.is_empty() { vec![None] } else { states.iter().map(Some).collect() }
}

#[test]
fn every_example_is_a_file_that_loads() {
    for mode in all() {
        for state in states(mode) {
            let text = example(mode, state);
            let topology = load(mode.id, &text, &LoadOptions::default())
                .unwrap_or_else(|said| panic!("{text}\n{}", said.render(false)));
            assert_eq!(topology.networks["net"].mode, mode.id);
            assert_eq!(topology.networks["net"].forwards.is_empty(), !mode.wiring.forwards, "{text}");
        }
    }
}
