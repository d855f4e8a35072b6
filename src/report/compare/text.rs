//! The matrix on a terminal, in a hundred columns.

use std::fmt::Write as _;

use super::super::{Tone, paint};
use super::{agreement, by_system, complaints, mark, short, speed, summary};
use crate::compare::{Agreement, Cell, Comparison, Outcome, Property, Row};

/// Width of the first column, and of the others.
pub(super) const FIRST: usize = 26;
const WIDTH: usize = 9;

/// Heads of the columns, as short as they must be.
pub(super) const HEADS: [&str; 8] =
    ["g→host", "host→g", "g↔g", "g→LAN", "LAN→g", "DHCP", "host IP", "loopback"];

/// The matrix with a legend, what is not as promised, and the sum; then speed, where it was measured. All of it for each
/// kind of guests.
#[must_use]
pub fn text(comparison: &Comparison, color: bool) -> String {
    let Some(agreement) = agreement(comparison) else { return one_kind(comparison, color) };
    let mut out = String::new();
    for one in comparison.by_kind() {
        let _ = writeln!(out, "Guests: {}\n\n{}", one.guests, one_kind(&one, color));
    }
    let _ = writeln!(out, "{agreement}");
    out
}

fn one_kind(comparison: &Comparison, color: bool) -> String {
    let mut head = format!("{:FIRST$}", "construct");
    for word in HEADS {
        let _ = write!(head, "{word:<WIDTH$}");
    }
    let mut out = format!("{}\n", head.trim_end());
    for (system, rows) in by_system(comparison) {
        let _ = writeln!(out, "\n{system}");
        let mut last = "";
        for row in rows {
            line(&mut out, row, last, color);
            last = &row.construct;
        }
    }
    legend(&mut out, color);
    let bad: Vec<String> = comparison.rows.iter().flat_map(complaints).collect();
    if !bad.is_empty() {
        out.push('\n');
    }
    for sentence in &bad {
        let _ = writeln!(out, "{} {sentence}", paint("DIFFERS", Tone::Bad, color));
    }
    let tone = if comparison.exit_code() == 0 { Tone::Good } else { Tone::Bad };
    let _ = writeln!(out, "\n{}", paint(&summary(comparison), tone, color));
    out.push_str(&speed::text(comparison, color));
    out
}

/// The start of a row's line: that of a state stands below its construct's name, and a name that is too long has a line
/// for itself.
pub(super) fn name(out: &mut String, row: &Row, last: &str) -> String {
    let mut name = format!("  {}", short(row));
    if let Some(state) = &row.state {
        if row.construct != last {
            let _ = writeln!(out, "{name}");
        }
        name = format!("    {state}");
    }
    if name.chars().count() >= FIRST {
        let _ = writeln!(out, "{name}");
        name.clear();
    }
    format!("{name:FIRST$}")
}

fn line(out: &mut String, row: &Row, last: &str, color: bool) {
    let mut line = name(out, row, last);
    match &row.outcome {
        Outcome::Measured => {
            for property in Property::ALL {
                let (text, tone) = match row.cell(property) {
                    Some(cell) => (mark(cell), tone(cell)),
                    None => ("·".to_owned(), Tone::Faint),
                };
                let pad = WIDTH.saturating_sub(text.chars().count());
                let _ = write!(line, "{}{:pad$}", paint(&text, tone, color), "");
            }
        }
        Outcome::Lacking(why) => line.push_str(&paint(why, Tone::Doubtful, color)),
        Outcome::Failed(_) => line.push_str(&paint("not measured, see below", Tone::Bad, color)),
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn tone(cell: &Cell) -> Tone {
    match (cell.agreement, cell.measured.as_str()) {
        (Agreement::Differs, _) => Tone::Bad,
        (Agreement::Unknown, _) => Tone::Doubtful,
        (_, "pass" | "forward" | "yes" | "server" | "lan") => Tone::Good,
        _ => Tone::Faint,
    }
}

fn legend(out: &mut String, color: bool) {
    let _ = writeln!(
        out,
        "\n{} passes  {} only through a port forward  {} does not pass, proven  {} nothing proven\n\
         * the system does not document it: netloom's reading  ! not as promised  · not promised",
        paint("pass", Tone::Good, color),
        paint("forward", Tone::Good, color),
        paint("block", Tone::Faint, color),
        paint("?", Tone::Doubtful, color),
    );
}
