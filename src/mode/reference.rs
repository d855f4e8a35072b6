//! The pages of `docs/modes.md`, from the entries themselves.

use std::fmt::Write as _;

use super::{Contract, Direction, Mode, all};

/// All modes as Markdown: one table of all, then a section for each.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("## All at a glance\n\n");
    let directions = Direction::ALL.map(Direction::words).join(" | ");
    let _ = writeln!(out, "| mode | {directions} | DHCP | host address |\n|---|---|---|---|---|---|---|---|");
    for mode in all() {
        let (dhcp, host) = mode.contract.map_or(("".to_owned(), ""), |contract| {
            let host = if contract.host_address { "yes" } else { "no" };
            (format!("{}{}", contract.dhcp, star(contract.inferred_dhcp)), host)
        });
        let _ =
            writeln!(out, "| [`{}`](#{}) | {} | {dhcp} | {host} |", mode.id, anchor(mode.id), cells(mode));
    }
    let mut system = "";
    for mode in all() {
        let (of, _) = mode.id.split_once('/').unwrap_or(("Generic modes", ""));
        if of != system {
            system = of;
            let _ = write!(out, "\n## {system}\n");
        }
        section(mode, &mut out);
    }
    out
}

/// How Markdown renderers call a heading: without its slashes.
fn anchor(id: &str) -> String {
    id.replace('/', "")
}

fn star(inferred: bool) -> &'static str {
    if inferred { "\\*" } else { "" }
}

fn cells(mode: &Mode) -> String {
    let inferred = |direction| mode.contract.is_some_and(|contract| contract.is_inferred(direction));
    let cells: Vec<String> = Direction::ALL
        .into_iter()
        .zip(mode.cells())
        .map(|(direction, cell)| format!("{cell}{}", star(inferred(direction))))
        .collect();
    cells.join(" | ")
}

fn section(mode: &Mode, out: &mut String) {
    let _ = write!(out, "\n### {}\n\n{}\n", mode.id, mode.promise);
    if !mode.alias.is_empty() {
        let _ = write!(out, "\nAlso called {}.\n", mode.alias);
    }
    if let Some(contract) = &mode.contract {
        promised(mode, contract, out);
    }
    let defaults: Vec<String> =
        mode.defaults.words().into_iter().map(|(key, value)| format!("{key} {value}")).collect();
    if !defaults.is_empty() {
        let _ = write!(out, "\nDefaults: {}.\n", defaults.join(", "));
    }
    let linux: Vec<&str> =
        mode.wiring.words().into_iter().chain(Some(mode.linux)).filter(|text| !text.is_empty()).collect();
    let _ = write!(out, "\nOn Linux: {}\n", linux.join(" "));
}

fn promised(mode: &Mode, contract: &Contract, out: &mut String) {
    let directions = Direction::ALL.map(Direction::words).join(" | ");
    let _ = write!(out, "\n| {directions} |\n|---|---|---|---|---|\n| {} |\n", cells(mode));
    if !contract.states.is_empty() {
        out.push('\n');
        for state in contract.states {
            let _ = writeln!(out, "* {}", contract.in_state(state));
        }
    }
    let host = if contract.host_address { "the host has an address" } else { "the host has no address" };
    let _ = write!(out, "\nDHCP: {}{}; {host}.", contract.dhcp.words(), star(contract.inferred_dhcp));
    if !contract.note.is_empty() {
        let _ = write!(out, " {}", contract.note);
    }
    let _ = writeln!(out, " Source: {}.", contract.source);
}
