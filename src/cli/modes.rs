//! `netloom modes`: what networks there are, and what one of them is.

use std::fmt::Write as _;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use super::ui;
use crate::error::{Error, Result};
use crate::mode::example::example;
use crate::mode::{self, Defaults, Dhcp, Direction, Mode, Promise, State, Wiring};
use crate::report;
use crate::spec::suggest;
use crate::spec::tree::shortened;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Explain one: its contract, its defaults, what it becomes on Linux, how to write it
    Show {
        /// The mode, such as `nat` or `vmware/nat`, or another name its users have for it, such as `vmnet8`
        #[arg(value_parser = ModeId, hide_possible_values = true)]
        id: String,
    },
}

/// Takes any text, so that what is wrong is said in netloom's words, and offers all modes to the shell.
#[derive(Debug, Clone)]
struct ModeId;

impl TypedValueParser for ModeId {
    type Value = String;
    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> std::result::Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(mode::all().map(|mode| PossibleValue::new(mode.id))))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    match &arguments.verb {
        None if arguments.json => ui::json(&mode::all().map(summary).collect::<Vec<_>>())?,
        None => ui::print(&list())?,
        Some(Verb::Show { id }) => {
            let mode = find(id)?;
            if arguments.json { ui::json(&Document::of(mode))? } else { ui::print(&show(mode))? }
        }
    }
    Ok(0)
}

fn find(id: &str) -> Result<&'static Mode> {
    let by_alias = || mode::all().find(|mode| !mode.alias.is_empty() && mode.alias == id);
    mode::by_id(id).or_else(by_alias).ok_or_else(|| {
        Error::input(format!("there is no mode `{}`", shortened(id))).hint(suggest::unknown_mode(id))
    })
}

fn list() -> String {
    let rows: Vec<Vec<String>> = mode::all()
        .map(|mode| {
            let alias = if mode.alias.is_empty() { "-" } else { mode.alias };
            let mut row = vec![mode.id.to_owned(), alias.to_owned()];
            row.extend(mode.cells().map(|cell| cell.short().to_owned()));
            row.push(mode.promise.to_owned());
            row
        })
        .collect();
    let table = report::table(&["MODE", "ALIAS", "G→H", "H→G", "G↔G", "G→L", "L→G", "PROMISE"], &rows);
    format!(
        "{table}\nG guest, H host, L the LAN and beyond; fwd: through a port forward only; dep: depends on a choice.\n\
         `netloom modes show MODE` explains one.\n"
    )
}

/// What `modes show` prints for people.
fn show(mode: &Mode) -> String {
    let mut out = match mode.alias {
        "" => format!("{}\n", mode.id),
        alias => format!("{} ({alias})\n", mode.id),
    };
    paragraph(&mut out, "", mode.promise);
    out.push('\n');
    out.push_str(&contract(mode));
    let defaults = mode.defaults.words();
    if !defaults.is_empty() {
        let rows: Vec<Vec<String>> =
            defaults.into_iter().map(|(key, value)| vec![format!("  {key}"), value]).collect();
        let _ = write!(out, "\nDefaults\n{}", body(&rows));
    }
    out.push_str("\nOn Linux\n");
    for line in mode.wiring.words() {
        paragraph(&mut out, "  ", line);
    }
    paragraph(&mut out, "  ", mode.linux);
    out.push_str("\nHow to write it\n");
    for line in example(mode, None).lines() {
        out.push_str(format!("  {line}").trim_end());
        out.push('\n');
    }
    out
}

fn contract(mode: &Mode) -> String {
    let contract = mode.contract;
    let doubt = |inferred: bool| if inferred { "(documented by nobody: netloom's reading)" } else { "" };
    let mut rows: Vec<Vec<String>> = Direction::ALL
        .into_iter()
        .zip(mode.cells())
        .map(|(direction, cell)| {
            let inferred = contract.is_some_and(|contract| contract.is_inferred(direction));
            let note = match (cell, doubt(inferred)) {
                (Promise::Forward, doubt) => format!("{} {doubt}", cell.words()),
                (_, doubt) => doubt.to_owned(),
            };
            vec![format!("  {}", direction.words()), cell.to_string(), note]
        })
        .collect();
    let Some(contract) = contract else { return format!("Promise\n{}", body(&rows)) };
    let mut row = |key: &str, value: String, note: &str| {
        rows.push(vec![format!("  {key}"), value, note.to_owned()]);
    };
    let dhcp = format!("{} {}", contract.dhcp.words(), doubt(contract.inferred_dhcp));
    row("DHCP", contract.dhcp.to_string(), &dhcp);
    row("host address", if contract.host_address { "yes" } else { "no" }.to_owned(), "");
    let mut out = format!("Contract\n{}", body(&rows));
    for state in contract.states {
        paragraph(&mut out, "  ", &contract.in_state(state));
    }
    paragraph(&mut out, "  ", contract.note);
    paragraph(&mut out, "  ", &format!("Source: {}", contract.source));
    out
}

/// A paragraph in lines of at most 100 characters (a word more where it is longer); nothing where there is no text.
fn paragraph(out: &mut String, indent: &str, text: &str) {
    let mut width = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 100 {
            out.push('\n');
            width = 0;
        }
        let before = if width == 0 { indent } else { " " };
        out.push_str(before);
        out.push_str(word);
        width += before.len() + length;
    }
    if width > 0 {
        out.push('\n');
    }
}

/// Rows without a header.
fn body(rows: &[Vec<String>]) -> String {
    report::table(&[], rows).trim_start_matches('\n').to_owned()
}

/// The five directions by their short names, such as `g2h`.
fn by_direction(cells: [Promise; 5]) -> Map<String, Value> {
    let name = |direction| serde_json::to_value(direction).ok()?.as_str().map(str::to_owned);
    Direction::ALL
        .into_iter()
        .zip(cells)
        .filter_map(|(direction, cell)| Some((name(direction)?, Value::String(cell.to_string()))))
        .collect()
}

/// A mode as `modes --json` lists it.
#[derive(Serialize)]
struct Summary {
    id: &'static str,
    alias: Option<&'static str>,
    promise: &'static str,
    cells: Map<String, Value>,
}

fn summary(mode: &'static Mode) -> Summary {
    let alias = (!mode.alias.is_empty()).then_some(mode.alias);
    Summary { id: mode.id, alias, promise: mode.promise, cells: by_direction(mode.cells()) }
}

/// What `modes show --json` prints.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    summary: Summary,
    contract: Option<ContractDocument>,
    defaults: Defaults,
    wiring: Wiring,
    /// The wiring in words, and where Linux differs.
    linux: Vec<&'static str>,
    example: String,
}

#[derive(Serialize)]
struct ContractDocument {
    cells: Map<String, Value>,
    inferred: &'static [Direction],
    dhcp: Dhcp,
    inferred_dhcp: bool,
    host_address: bool,
    states: Vec<StateDocument>,
    note: Option<&'static str>,
    source: &'static str,
}

#[derive(Serialize)]
struct StateDocument {
    label: &'static str,
    keys: Vec<&'static str>,
    cells: Map<String, Value>,
    hairpin: bool,
    example: String,
}

impl Document {
    fn of(mode: &'static Mode) -> Self {
        let mut linux = mode.wiring.words();
        if !mode.linux.is_empty() {
            linux.push(mode.linux);
        }
        let contract = mode.contract.as_ref().map(|contract| ContractDocument {
            cells: by_direction(contract.cells),
            inferred: contract.inferred,
            dhcp: contract.dhcp,
            inferred_dhcp: contract.inferred_dhcp,
            host_address: contract.host_address,
            states: contract.states.iter().map(|state| StateDocument::of(mode, state)).collect(),
            note: (!contract.note.is_empty()).then_some(contract.note),
            source: contract.source,
        });
        Document {
            summary: summary(mode),
            contract,
            defaults: mode.defaults,
            wiring: mode.wiring,
            linux,
            example: example(mode, None),
        }
    }
}

impl StateDocument {
    fn of(mode: &Mode, state: &'static State) -> Self {
        StateDocument {
            label: state.label,
            keys: state.keys.lines().collect(),
            cells: by_direction(state.cells),
            hairpin: state.hairpin,
            example: example(mode, Some(state)),
        }
    }
}
