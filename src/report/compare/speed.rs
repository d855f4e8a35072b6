//! What constructs cost, in figures: as a table on a terminal and in Markdown.

use std::fmt::Write as _;

use super::super::{Tone, paint};
use super::text::{FIRST, name};
use super::{by_system, short};
use crate::compare::speed::{Pair, Speed};
use crate::compare::{Comparison, Row};

/// Width of a column on a terminal: six of them and the name's make a hundred.
const WIDTH: usize = 12;

/// Heads of the columns, in the order of [`Pair::ALL`].
const HEADS: [&str; 6] = ["g→g", "g→host", "host→g", "g→LAN", "LAN→g", "g→outside"];

/// What the figures are.
pub(super) const LEGEND: &str =
    "TCP throughput in bits of payload per second, and the median round-trip time of the idle network";

/// Whether there is anything to show.
pub(super) fn any(comparison: &Comparison) -> bool {
    comparison.rows.iter().any(|row| !row.speed.is_empty())
}

/// The figures of a pair, if its contract lets it through.
pub(super) fn of(row: &Row, pair: Pair) -> Option<&Speed> {
    row.speed.iter().find(|speed| speed.pair == pair)
}

/// Three digits with a unit of a thousand: `941M`, `9.41G`.
pub(super) fn rate(bits_per_second: u64) -> String {
    let (mut unit, mut value) = ("", bits_per_second as f64);
    for next in ["k", "M", "G", "T"] {
        // What would be rounded to four digits has the next unit.
        if value >= 999.5 {
            (unit, value) = (next, value / 1000.0);
        }
    }
    let digits = if unit.is_empty() || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{value:.digits$}{unit}")
}

/// Microseconds, or milliseconds with two digits: `45µs`, `1.2ms`.
pub(super) fn time(us: u64) -> String {
    let milliseconds = us as f64 / 1000.0;
    match us {
        0..1000 => format!("{us}µs"),
        1000..9950 => format!("{milliseconds:.1}ms"),
        _ => format!("{milliseconds:.0}ms"),
    }
}

/// `9.41G 45µs`; a `?` in place of what could not be measured.
fn figures(speed: &Speed) -> String {
    let throughput = speed.throughput.as_ref().map_or("?".to_owned(), |one| rate(one.bits_per_second));
    let rtt = speed.rtt.as_ref().map_or("?".to_owned(), |rtt| time(rtt.median_us));
    format!("{throughput} {rtt}")
}

/// A sentence for each figure that is missing.
pub(super) fn missing(row: &Row) -> Vec<String> {
    let of = |speed: &Speed| {
        let sentence =
            |what: &str, why: &String| format!("{}: {}: no {what}: {why}", row.name(), speed.pair.words());
        match (&speed.throughput_reason, &speed.rtt_reason) {
            (Some(one), Some(other)) if one == other => vec![sentence("figures", one)],
            (one, other) => {
                let throughput = one.iter().map(|why| sentence("throughput", why));
                throughput.chain(other.iter().map(|why| sentence("round-trip time", why))).collect()
            }
        }
    };
    row.speed.iter().flat_map(of).collect()
}

/// A table for a terminal; empty when no speed was measured.
pub(super) fn text(comparison: &Comparison, color: bool) -> String {
    if !any(comparison) {
        return String::new();
    }
    let mut head = format!("{:FIRST$}", "speed");
    for word in HEADS {
        let _ = write!(head, "{word:<WIDTH$}");
    }
    let mut out = format!("\n{}\n", head.trim_end());
    for (system, rows) in by_system(comparison) {
        let measured: Vec<&Row> = rows.into_iter().filter(|row| !row.speed.is_empty()).collect();
        if measured.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{system}");
        let mut last = "";
        for row in measured {
            let mut line = name(&mut out, row, last);
            last = &row.construct;
            for pair in Pair::ALL {
                let (text, tone) = match of(row, pair) {
                    Some(speed) if speed.throughput.is_some() => (figures(speed), None),
                    Some(speed) => (figures(speed), Some(Tone::Doubtful)),
                    None => ("·".to_owned(), Some(Tone::Faint)),
                };
                let pad = WIDTH.saturating_sub(text.chars().count());
                let shown = tone.map_or(text.clone(), |tone| paint(&text, tone, color));
                let _ = write!(line, "{shown}{:pad$}", "");
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    let _ = writeln!(out, "\n{LEGEND}\n· the contract does not let it through  ? not measured");
    for sentence in comparison.rows.iter().flat_map(missing) {
        let _ = writeln!(out, "{} {sentence}", paint("NO FIGURE", Tone::Doubtful, color));
    }
    out
}

/// Tables in Markdown; empty when no speed was measured. `plain` makes text mean nothing to Markdown.
pub(super) fn markdown(comparison: &Comparison, plain: fn(&str) -> String) -> String {
    if !any(comparison) {
        return String::new();
    }
    let mut out = format!("\n## Speed\n\n{LEGEND}.\n\n| construct |");
    for pair in Pair::ALL {
        let _ = write!(out, " {} |", pair.words());
    }
    let _ = writeln!(out, "\n|---|{}", "---|".repeat(Pair::ALL.len()));
    for row in comparison.rows.iter().filter(|row| !row.speed.is_empty()) {
        let _ = write!(out, "| {} |", plain(&row.name()));
        for pair in Pair::ALL {
            let _ = write!(out, " {} |", of(row, pair).map(figures).unwrap_or_default());
        }
        out.push('\n');
    }
    let missing: Vec<String> = comparison.rows.iter().flat_map(missing).collect();
    if !missing.is_empty() {
        out.push('\n');
    }
    for sentence in missing {
        let _ = writeln!(out, "- {}", plain(&sentence));
    }
    out
}

/// The construct without its system, and its state.
pub(super) fn title(row: &Row) -> String {
    match &row.state {
        Some(state) => format!("{} · {state}", short(row)),
        None => short(row).to_owned(),
    }
}
