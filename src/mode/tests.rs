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

/// Two ways to the same five directions: what the entry says, and what follows from the primitives that the language
/// makes of the example of each state.
#[test]
fn wiring_and_contract_agree() {
    for mode in all() {
        for state in states(mode) {
            let wanted = state.map_or(mode.cells(), |state| state.cells);
            let topology = load(mode.id, &example(mode, state), &LoadOptions::default()).unwrap();
            let found = topology.networks["net"].wiring.cells();
            for ((found, wanted), direction) in found.into_iter().zip(wanted).zip(Direction::ALL) {
                // The switch outside is no wiring of ours.
                let outside = state.is_some_and(|state| state.hairpin)
                    || found == Promise::Depends && direction == Direction::G2g;
                assert!(found == wanted || outside, "{} {state:?} {direction:?}: {found}", mode.id);
            }
        }
    }
}

#[test]
fn an_entry_contradicts_itself_nowhere() {
    for mode in all() {
        let (id, wiring) = (mode.id, mode.wiring);
        assert_eq!(
            all().filter(|other| other.id == id || !other.alias.is_empty() && other.alias == id).count(),
            1,
            "{id}"
        );
        assert!(mode.promise.ends_with('.') && !mode.promise.contains('\n'), "{id}");
        let Some(contract) = mode.contract else { continue };
        assert!(id.contains('/') && !contract.source.is_empty(), "{id}");
        assert_eq!(contract.cells.contains(&Promise::Forward), wiring.forwards, "{id}");
        assert!(!contract.cells.contains(&Promise::Depends) || !contract.states.is_empty(), "{id}");
        let uplink = wiring.uplink != Uplink::None;
        assert_eq!(contract.dhcp == Dhcp::Lan, uplink && id != "openstack/provider", "{id}");
        assert_eq!(contract.dhcp == Dhcp::Server, wiring.dhcp && contract.dhcp != Dhcp::Optional, "{id}");
        if contract.states.is_empty() {
            let host = wiring.host_leg || (wiring.uplink == Uplink::Port && !wiring.barred);
            assert_eq!(contract.host_address, host, "{id}");
        }
        for (cell, promise) in contract.cells.into_iter().enumerate() {
            let seen = |wanted| contract.states.iter().any(|state| state.cells[cell] == wanted);
            if promise == Promise::Depends {
                assert!(seen(Promise::Pass) && seen(Promise::Block), "{id}: both sides of cell {cell}");
            } else {
                assert!(
                    contract.states.iter().all(|state| state.hairpin || state.cells[cell] == promise),
                    "{id}: cell {cell}"
                );
            }
        }
        if let Some(subnet) = mode.defaults.subnet {
            assert!(subnet.ends_with(".0/24"), "{id}");
        }
    }
}

/// The published promises, written down a second time: an entry that changes must change there as well.
#[test]
fn the_published_promises() {
    let wanted: Vec<&str> =
        include_str!("promises.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let found: Vec<String> = all()
        .filter_map(|mode| Some((mode, mode.contract?)))
        .map(|(mode, contract)| row(mode, &contract))
        .collect();
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!((found.len(), wanted.len()), (49, 49));
}

fn row(mode: &Mode, contract: &Contract) -> String {
    let cells = contract.cells.map(|cell| format!("{cell:<8}")).concat();
    let name = |dhcp: Dhcp| serde_json::to_value(dhcp).unwrap().as_str().unwrap().to_owned();
    let dhcp = name(contract.dhcp) + if contract.inferred_dhcp { "?" } else { "" };
    let host = if contract.host_address { "host" } else { "-" };
    let alias = if mode.alias.is_empty() { "-" } else { mode.alias };
    let inferred: Vec<String> = contract.inferred.iter().map(|d| format!("{d:?}").to_lowercase()).collect();
    let row = format!("{:<32}{cells}{dhcp:<9}{host:<5}{alias:<7}{}", mode.id, inferred.join(" "));
    row.trim_end().to_owned()
}
