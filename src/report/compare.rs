//! A comparison as text, Markdown and a page. No I/O.

pub mod against;
mod chart;
mod html;
mod markdown;
mod speed;
mod text;

pub use html::html;
pub use markdown::markdown;
pub use text::text;

use crate::compare::{Agreement, Cell, Comparison, Outcome, Row};

/// The last line: everything in numbers.
pub(super) fn summary(comparison: &Comparison) -> String {
    let counts = comparison.counts();
    let plural = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let mut out = format!(
        "{}, {}, {}, {} differ",
        plural(counts.constructs, "construct"),
        plural(counts.rows, "row"),
        plural(counts.cells, "cell"),
        counts.differ
    );
    for (count, what) in [
        (counts.unknown, format!("{} unknown", counts.unknown)),
        (counts.failed, format!("{} not measured", plural(counts.failed, "row"))),
        (counts.lacking, format!("{} not for this kernel", plural(counts.lacking, "row"))),
    ] {
        if count > 0 {
            out.push_str(&format!(", {what}"));
        }
    }
    let seconds = comparison.seconds.max(0.001);
    let rate = f64::from(u32::try_from(counts.probes).unwrap_or(u32::MAX)) / seconds;
    out.push_str(&format!("; {} in {seconds:.1} s ({rate:.0}/s)", plural(counts.probes, "probe")));
    out
}

/// A cell in a word: what was measured, `*` where the promise is netloom's reading, `!` where it differs.
pub(super) fn mark(cell: &Cell) -> String {
    let star = if cell.inferred { "*" } else { "" };
    match cell.agreement {
        Agreement::Equal => format!("{}{star}", cell.measured),
        Agreement::Differs => format!("{}{star}!", cell.measured),
        Agreement::Unknown => format!("?{star}"),
    }
}

/// One sentence for each cell of a row that is not as promised.
pub(super) fn complaints(row: &Row) -> Vec<String> {
    if let Outcome::Failed(why) = &row.outcome {
        return vec![format!("{}: not measured: {why}", row.name())];
    }
    row.cells
        .iter()
        .filter(|cell| cell.agreement != Agreement::Equal)
        .map(|cell| {
            let why = cell.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!(
                "{}: {}: promised {}, measured {}{why}",
                row.name(),
                cell.property.words(),
                cell.promised,
                cell.measured
            )
        })
        .collect()
}

/// Which guests, where there are several kinds; and that they agree.
pub(super) fn agreement(comparison: &Comparison) -> Option<String> {
    let (equal, compared) = comparison.kinds_agree()?;
    Some(format!("Namespaces and VMs agree in {equal} of {compared} cells."))
}

/// The rows by system, in their order.
pub(super) fn by_system(comparison: &Comparison) -> Vec<(&str, Vec<&Row>)> {
    let mut systems: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in &comparison.rows {
        match systems.last_mut() {
            Some((system, rows)) if *system == row.system() => rows.push(row),
            _ => systems.push((row.system(), vec![row])),
        }
    }
    systems
}

/// The construct without its system.
pub(super) fn short(row: &Row) -> &str {
    row.construct.split_once('/').map_or(row.construct.as_str(), |(_, name)| name)
}

#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;
