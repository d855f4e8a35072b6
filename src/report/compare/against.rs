//! netloom's constructs beside the real ones, as text and Markdown. No I/O.

use std::fmt::Write as _;

use super::super::{Tone, paint};
use super::markdown::plain;
use super::short;
use crate::compare::against::{Against, Likeness, Pair, Twin};
use crate::compare::{Outcome, Property};

/// Width of the first column, and of the others.
const FIRST: usize = 28;
const WIDTH: usize = 10;

/// Each construct with netloom's cells above those of the real one, what is not the same, and the sum.
#[must_use]
pub fn text(against: &Against, color: bool) -> String {
    let mut head = format!("{:FIRST$}", "construct");
    for word in super::text::HEADS {
        let _ = write!(head, "{word:<WIDTH$}");
    }
    let mut out = format!("{}\n", head.trim_end());
    for pair in &against.pairs {
        let state = pair.ours.state.as_ref().map(|state| format!(" · {state}")).unwrap_or_default();
        let _ = writeln!(out, "\n{}{state}", short(&pair.ours));
        for (who, theirs) in [("netloom".to_owned(), false), (name(against, pair), true)] {
            line(&mut out, pair, &who, theirs, color);
        }
    }
    let notes = notes(against);
    if !notes.is_empty() {
        out.push('\n');
    }
    for (word, sentence) in notes {
        let tone = if word == "explained" { Tone::Doubtful } else { Tone::Bad };
        let _ = writeln!(out, "{} {sentence}", paint(word, tone, color));
    }
    let tone = if against.exit_code() == 0 { Tone::Good } else { Tone::Bad };
    let _ = writeln!(out, "\n{}", paint(&summary(against), tone, color));
    out
}

/// What the real one is called in a row: `libvirt 11.3.0, VMs`.
fn name(against: &Against, pair: &Pair) -> String {
    let what = if pair.thing == against.system {
        format!("{} {}", against.system, against.version)
    } else {
        format!("{}, {}", against.system, pair.thing)
    };
    if pair.guests == "vm" { format!("{what} (VMs)") } else { what }
}

fn line(out: &mut String, pair: &Pair, who: &str, theirs: bool, color: bool) {
    let mut line = format!("{:FIRST$}", format!("  {who}"));
    let row = if theirs { &pair.theirs } else { &pair.ours };
    match &row.outcome {
        Outcome::Lacking(why) => line.push_str(&paint(why, Tone::Doubtful, color)),
        Outcome::Failed(_) => line.push_str(&paint("not measured, see below", Tone::Bad, color)),
        Outcome::Measured => {
            for property in Property::ALL {
                let twin = pair.twins.iter().find(|twin| twin.property == property);
                let (text, tone) = match (twin, row.cell(property)) {
                    (Some(twin), _) => (word(twin, theirs), tone(twin)),
                    (None, Some(cell)) => (cell.measured.clone(), Tone::Faint),
                    (None, None) => ("·".to_owned(), Tone::Faint),
                };
                let pad = WIDTH.saturating_sub(text.chars().count());
                let _ = write!(line, "{}{:pad$}", paint(&text, tone, color), "");
            }
        }
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// A cell of one of both: `~` where it differs for a known reason, `!` where it differs.
fn word(twin: &Twin, theirs: bool) -> String {
    let shown = if theirs { &twin.theirs } else { &twin.ours };
    let shown = if shown == "unknown" { "?" } else { shown };
    match twin.likeness {
        Likeness::Explained if theirs => format!("{shown}~"),
        Likeness::Differs if theirs => format!("{shown}!"),
        _ => shown.to_owned(),
    }
}

fn tone(twin: &Twin) -> Tone {
    match twin.likeness {
        Likeness::Equal => Tone::Good,
        Likeness::Explained | Likeness::Unknown => Tone::Doubtful,
        Likeness::Differs => Tone::Bad,
    }
}

/// One sentence for each cell that is not the same and each row that was not measured, with a word for what it is.
fn notes(against: &Against) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    for pair in &against.pairs {
        let name = format!("{}, {}", pair.ours.name(), pair.thing);
        match pair.unmeasured() {
            Some((whose, Outcome::Lacking(why))) => {
                out.push(("LACKING", format!("{name}: {whose} cannot be built here: {why}")));
            }
            Some((whose, Outcome::Failed(why))) => {
                out.push(("DIFFERS", format!("{name}: {whose} was not measured: {why}")));
            }
            _ => {}
        }
        for twin in pair.twins.iter().filter(|twin| twin.likeness != Likeness::Equal) {
            let what = match twin.likeness {
                Likeness::Explained => "explained",
                Likeness::Unknown => "UNKNOWN",
                _ => "DIFFERS",
            };
            let why = twin.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let column = twin.property.words();
            out.push((what, format!("{name}: {column}: netloom {}, real {}{why}", twin.ours, twin.theirs)));
        }
    }
    out
}

/// The last line: everything in numbers.
fn summary(against: &Against) -> String {
    let counts = against.counts();
    let mut out = format!(
        "{} of {} cells equal to {} {}'s own, {} explained, {} differ",
        counts.equal, counts.compared, against.system, against.version, counts.explained, counts.differ
    );
    for (count, what) in [
        (counts.unknown, "unknown"),
        (counts.failed, "rows not measured"),
        (counts.lacking, "rows not for this host"),
    ] {
        if count > 0 {
            let _ = write!(out, ", {count} {what}");
        }
    }
    let _ = write!(out, "; {} rows in {:.1} s", counts.pairs, against.seconds);
    if !against.without.is_empty() {
        let _ = write!(out, "; without a real thing here: {}", against.without.join(", "));
    }
    out
}

/// The same as a table in Markdown.
#[must_use]
pub fn markdown(against: &Against) -> String {
    let mut out = format!("# netloom and {} {}\n\n| construct | whose |", against.system, against.version);
    for property in Property::ALL {
        let _ = write!(out, " {} |", property.words());
    }
    let _ = writeln!(out, "\n|---|---|{}", "---|".repeat(Property::ALL.len()));
    for pair in &against.pairs {
        for (who, theirs) in [("netloom".to_owned(), false), (name(against, pair), true)] {
            let _ = write!(out, "| {} | {} |", plain(&pair.ours.name()), plain(&who));
            for property in Property::ALL {
                let twin = pair.twins.iter().find(|twin| twin.property == property);
                let _ = write!(out, " {} |", twin.map_or(String::new(), |twin| plain(&word(twin, theirs))));
            }
            out.push('\n');
        }
    }
    let notes = notes(against);
    if !notes.is_empty() {
        out.push('\n');
    }
    for (word, sentence) in notes {
        let _ = writeln!(out, "- {}: {}", word.to_lowercase(), plain(&sentence));
    }
    let _ = writeln!(out, "\n{}", plain(&summary(against)));
    out
}
