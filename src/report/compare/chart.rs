//! What constructs cost, drawn: a panel for each pair, a bar for each kind of guests, constructs below one another.

use std::fmt::Write as _;

use super::html::escape;
use super::speed::{LEGEND, any, missing, of, rate, time, title};
use crate::compare::speed::{Pair, Speed};
use crate::compare::{Comparison, Row};

/// What the drawings add to the page's style.
pub(super) const STYLE: &str = include_str!("chart.css");

/// How it is measured, in the page's own words.
const METHOD: [(&str, &str); 3] = [
    (
        "throughput",
        "One TCP connection of iperf3 for one second, from the first end to the second; what arrived counts. The server \
         ends with the test. One pair at a time, and no lab is built, measured or removed meanwhile.",
    ),
    (
        "round-trip time",
        "Before that, on the idle network: 30 echo requests by ping, 10 ms apart, after a first one that does not count; \
         where a port forward is in between, 30 connections to a port that nobody listens on any more, which the guest's kernel \
         refuses. The median is drawn.",
    ),
    (
        "what the figures are worth",
        "They are this machine's, where both ends and all between them share its processors: they compare constructs, not \
         networks. No figure is judged.",
    ),
];

/// Widths and heights in pixels: names, a panel, its longest bar, a bar, the room below a row, heads.
const NAMES: usize = 230;
const PANEL: usize = 172;
const LONGEST: f64 = 96.0;
const BAR: usize = 12;
const ROOM: usize = 5;
const SYSTEM: usize = 24;
const HEAD: usize = 40;

/// What is drawn.
#[derive(Clone, Copy, PartialEq)]
enum Figure {
    Throughput,
    Rtt,
}

impl Figure {
    fn of(self, speed: &Speed) -> Option<u64> {
        match self {
            Figure::Throughput => speed.throughput.as_ref().map(|one| one.bits_per_second),
            Figure::Rtt => speed.rtt.as_ref().map(|rtt| rtt.median_us),
        }
    }

    fn words(self, value: u64) -> String {
        match self {
            Figure::Throughput => rate(value),
            Figure::Rtt => time(value),
        }
    }

    fn head(self) -> &'static str {
        match self {
            Figure::Throughput => "TCP throughput, bit/s (longer is better)",
            Figure::Rtt => "Round-trip time, median (shorter is better)",
        }
    }
}

/// Powers of ten between which everything is, for a logarithmic scale.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    low: u32,
    high: u32,
}

impl Scale {
    /// A bar for the smallest value is not empty.
    fn new(values: impl Iterator<Item = u64> + Clone) -> Self {
        let smallest = values.clone().filter(|value| *value > 0).min().unwrap_or(1);
        let largest = values.max().unwrap_or(1).max(1);
        let low = (smallest - 1).checked_ilog10().unwrap_or(0);
        let high = (largest - 1).checked_ilog10().map_or(0, |power| power + 1).max(low + 1);
        Self { low, high }
    }

    /// Length of the bar of a value.
    fn length(self, value: u64) -> f64 {
        let share = ((value.max(1) as f64).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        share.clamp(0.0, 1.0) * LONGEST
    }
}

/// The section of the page; empty when no speed was measured.
pub(super) fn section(comparison: &Comparison) -> String {
    if !any(comparison) {
        return String::new();
    }
    let kinds: Vec<&str> = comparison.guests.split(',').collect();
    let mut out = format!("<h2>What it costs</h2>\n<p>{}. Each scale is logarithmic.", escape(LEGEND));
    if kinds.len() > 1 {
        let named = ["solid bar", "hollow bar"];
        let words =
            kinds.iter().zip(named).map(|(kind, bar)| format!("{}: {kind} guests ({bar})", brief(kind)));
        let _ = write!(out, " {}.", escape(&words.collect::<Vec<_>>().join("; ")));
    }
    out.push_str("</p>\n");
    for figure in [Figure::Throughput, Figure::Rtt] {
        let _ = write!(out, "<h3>{}</h3>\n<div class=\"chart\">", escape(figure.head()));
        draw(&mut out, comparison, &kinds, figure);
        out.push_str("</div>\n");
    }
    let lost: Vec<String> = comparison.by_kind().iter().flat_map(|one| lost(one, kinds.len() > 1)).collect();
    if !lost.is_empty() {
        let _ = writeln!(out, "<h3>Not measured</h3>\n<ul>{}</ul>", lost.concat());
    }
    table(&mut out, comparison);
    out.push_str("<dl>\n");
    for (term, text) in METHOD {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(term), escape(text));
    }
    out.push_str("</dl>\n");
    out
}

fn lost(one: &Comparison, several: bool) -> Vec<String> {
    let kind = if several { format!("{}: ", one.guests) } else { String::new() };
    let sentences = one.rows.iter().flat_map(missing);
    sentences.map(|sentence| format!("<li>{}</li>", escape(&format!("{kind}{sentence}")))).collect()
}

/// A kind of guests in two letters.
fn brief(kind: &str) -> &str {
    if kind == "vm" { "vm" } else { "ns" }
}

/// Constructs and states that were measured with any kind of guests, in their order: by system, once each.
fn drawn(comparison: &Comparison) -> Vec<&Row> {
    let mut rows: Vec<&Row> = Vec::new();
    for row in comparison.rows.iter().filter(|row| !row.speed.is_empty()) {
        let same = |other: &&Row| other.construct == row.construct && other.state == row.state;
        if !rows.iter().any(same) {
            // A construct that only a later kind has goes to its system.
            let place = rows.iter().rposition(|other| other.system() == row.system());
            rows.insert(place.map_or(rows.len(), |place| place + 1), row);
        }
    }
    rows
}

fn draw(out: &mut String, comparison: &Comparison, kinds: &[&str], figure: Figure) {
    let rows = drawn(comparison);
    let values = || comparison.rows.iter().flat_map(|row| &row.speed).filter_map(|speed| figure.of(speed));
    let scale = Scale::new(values().collect::<Vec<_>>().into_iter());
    let mut systems: Vec<&str> = rows.iter().map(|row| row.system()).collect();
    systems.dedup();
    let step = BAR * kinds.len() + ROOM;
    let height = HEAD + systems.len() * SYSTEM + rows.len() * step;
    let width = NAMES + Pair::ALL.len() * PANEL;
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{}\">",
        escape(figure.head())
    );
    for (index, pair) in Pair::ALL.into_iter().enumerate() {
        axis(out, pair, NAMES + index * PANEL, height, scale, figure);
    }
    let mut y = HEAD;
    let mut last = "";
    for row in rows {
        if row.system() != last {
            last = row.system();
            y += SYSTEM;
            let _ = writeln!(out, "<text class=\"of\" x=\"0\" y=\"{}\">{}</text>", y - 7, escape(last));
        }
        let middle = y + (BAR * kinds.len()).div_ceil(2) + 4;
        let full = title(row);
        let mut shown: String = full.chars().take(36).collect();
        if shown != full {
            shown.push('…');
        }
        let _ = writeln!(
            out,
            "<g><title>{}</title><text x=\"10\" y=\"{middle}\">{}</text></g>",
            escape(&row.name()),
            escape(&shown)
        );
        for (index, pair) in Pair::ALL.into_iter().enumerate() {
            for (position, kind) in kinds.iter().enumerate() {
                let Some(speed) = comparison.same(row, kind).and_then(|row| of(row, pair)) else { continue };
                let at = (NAMES + index * PANEL, y + position * BAR, position);
                bar(out, at, (row, kind, kinds.len() > 1), speed, (scale, figure));
            }
        }
        y += step;
    }
    out.push_str("</svg>");
}

/// A panel's head and the lines of its powers of ten; the first and the last are named.
fn axis(out: &mut String, pair: Pair, x: usize, height: usize, scale: Scale, figure: Figure) {
    let _ = writeln!(out, "<text class=\"head\" x=\"{x}\" y=\"14\">{}</text>", escape(pair.words()));
    for power in scale.low..=scale.high {
        let value = 10_u64.saturating_pow(power);
        let at = x as f64 + scale.length(value);
        let _ = write!(out, "<path d=\"M{at:.1} {HEAD}V{height}\"></path>");
        if power == scale.low || power == scale.high {
            let words = figure.words(value);
            let _ = writeln!(out, "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\">{words}</text>", HEAD - 6);
        }
    }
}

/// One bar with its figure behind it, and the rest of the figures as its title.
fn bar(
    out: &mut String,
    (x, y, position): (usize, usize, usize),
    (row, kind, several): (&Row, &str, bool),
    speed: &Speed,
    (scale, figure): (Scale, Figure),
) {
    let value = figure.of(speed);
    let length = value.map_or(0.0, |value| scale.length(value).max(1.0));
    let words = value.map_or_else(|| "not measured".to_owned(), |value| figure.words(value));
    let label = if several { format!("{words} {}", brief(kind)) } else { words };
    let heading = format!("{}, {kind} guests, {}: {}", row.name(), speed.pair.words(), details(speed));
    let _ = writeln!(
        out,
        "<g><title>{}</title><rect class=\"kind{position}\" x=\"{x}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\"></rect>\
         <text class=\"value\" x=\"{:.1}\" y=\"{}\">{}</text></g>",
        escape(&heading),
        y + 1,
        BAR - 3,
        x as f64 + length + 4.0,
        y + BAR - 2,
        escape(&label)
    );
}

/// All figures of a pair in a sentence.
fn details(speed: &Speed) -> String {
    let throughput = match (&speed.throughput, &speed.throughput_reason) {
        (Some(one), _) => {
            format!("{} bit/s, {} bytes in {:.2} s", one.bits_per_second, one.bytes, one.seconds)
        }
        (None, why) => format!("no throughput ({})", why.as_deref().unwrap_or_default()),
    };
    let rtt = match (&speed.rtt, &speed.rtt_reason) {
        (Some(rtt), _) => format!(
            "round-trip min {} µs, median {} µs, p95 {} µs, {} of {} answered ({})",
            rtt.min_us, rtt.median_us, rtt.p95_us, rtt.answered, rtt.sent, rtt.by
        ),
        (None, why) => format!("no round-trip time ({})", why.as_deref().unwrap_or_default()),
    };
    format!("{throughput}; {rtt}")
}

/// Every figure as text.
fn table(out: &mut String, comparison: &Comparison) {
    out.push_str("<details class=\"figures\"><summary>All figures</summary>\n<table>\n");
    for row in &comparison.rows {
        for speed in &row.speed {
            let through = speed.through.as_ref().map(|through| format!(" ({through})")).unwrap_or_default();
            let address = speed.address.map(|address| address.to_string()).unwrap_or_default();
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}{}</td><td>{}</td><td>{}</td></tr>",
                escape(&row.name()),
                escape(&row.guests),
                escape(speed.pair.words()),
                escape(&through),
                escape(&address),
                escape(&details(speed))
            );
        }
    }
    out.push_str("</table></details>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_holds_everything_between_powers_of_ten() {
        let scale = |values: &[u64]| Scale::new(values.iter().copied());
        assert_eq!(scale(&[95_000_000, 41_000_000_000]), Scale { low: 7, high: 11 });
        // A bar for a power of ten itself is not empty, and needs no power more.
        assert_eq!(scale(&[10, 1000]), Scale { low: 0, high: 3 });
        assert_eq!(scale(&[11, 1001]), Scale { low: 1, high: 4 });
        assert_eq!(scale(&[]), Scale { low: 0, high: 1 });
        let one = scale(&[20, 2000]);
        assert_eq!(one, Scale { low: 1, high: 4 });
        assert!((one.length(10) - 0.0).abs() < 1e-9 && (one.length(10_000) - LONGEST).abs() < 1e-9);
        assert!((one.length(100) - LONGEST / 3.0).abs() < 1e-9);
    }
}
