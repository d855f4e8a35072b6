//! Who reaches whom, on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Tone, paint};
use crate::probe::{Measured, Verdict};
use crate::topology::ExpectedVerdict;

/// The matrix of who reaches whom, with a legend and the failed expectations. One row for each source, one column for
/// each target; a cell holds a mark for what came out and the service, and `!` where that was not expected.
#[must_use]
pub fn matrix(measured: &[Measured], color: bool) -> String {
    if measured.is_empty() {
        return "The file expects nothing (no `expect:` entries).\n".to_owned();
    }
    let mut out = grid(measured, color);
    let _ = writeln!(
        out,
        "\n{} reachable  {} blocked  {} inconclusive  ! not as expected",
        paint("✓", Tone::Good, color),
        paint("✗", Tone::Faint, color),
        paint("?", Tone::Doubtful, color)
    );
    let failed: Vec<&Measured> = measured.iter().filter(|one| !one.ok).collect();
    if !failed.is_empty() {
        out.push('\n');
    }
    for one in &failed {
        let _ = writeln!(out, "{} {}", paint("FAILED", Tone::Bad, color), sentence(one));
    }
    let met = measured.len() - failed.len();
    let tone = if failed.is_empty() { Tone::Good } else { Tone::Bad };
    let _ = writeln!(out, "\n{}", paint(&format!("{met} of {} as expected", measured.len()), tone, color));
    out
}

/// One expectation that was not met.
fn sentence(one: &Measured) -> String {
    let wanted = match one.expected {
        ExpectedVerdict::Reachable => "reachable",
        ExpectedVerdict::Blocked => "blocked",
    };
    let address = one.address.map(|address| format!(" at {address}")).unwrap_or_default();
    format!(
        "line {}: {}{address}: expected {wanted}, is {} ({})",
        one.line,
        title(one),
        word(one.verdict),
        one.detail
    )
}

/// `pc -> web tcp/80 via wan over IPv4`.
pub(super) fn title(one: &Measured) -> String {
    let via = one.via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default();
    let family = one.family.map(|family| format!(" over IPv{family}")).unwrap_or_default();
    format!("{} -> {} {}{via}{family}", one.from, one.to, one.service)
}

/// The verdict as a word.
pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reachable => "reachable",
        Verdict::Blocked => "blocked",
        Verdict::Inconclusive => "inconclusive",
    }
}

/// What a cell says of one service, both families together.
struct Entry {
    verdict: Verdict,
    ok: bool,
    text: String,
}

impl Entry {
    fn mark(&self) -> String {
        let mark = match self.verdict {
            Verdict::Reachable => "✓",
            Verdict::Blocked => "✗",
            Verdict::Inconclusive => "?",
        };
        format!("{mark}{} {}", if self.ok { "" } else { "!" }, self.text)
    }

    fn tone(&self) -> Tone {
        match (self.ok, self.verdict) {
            (false, Verdict::Inconclusive) => Tone::Doubtful,
            (false, _) => Tone::Bad,
            (true, Verdict::Reachable) => Tone::Good,
            (true, _) => Tone::Faint,
        }
    }
}

fn grid(measured: &[Measured], color: bool) -> String {
    let (sources, targets) = (order(measured, |one| &one.from), order(measured, |one| &one.to));
    let cells = cells(measured);
    let width = |to: &&str| {
        let marks =
            sources.iter().flat_map(|from| cell(&cells, from, to)).map(|entry| entry.mark().chars().count());
        marks.chain([to.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = targets.iter().map(width).collect();
    let corner = "from \\ to";
    let first = sources.iter().map(|from| from.chars().count()).chain([corner.len()]).max().unwrap_or(0);
    let mut out = format!("{corner:<first$}");
    for (to, width) in targets.iter().zip(&widths) {
        let _ = write!(out, "  {to:<width$}");
    }
    out = format!("{}\n", out.trim_end());
    for from in &sources {
        let height = targets.iter().map(|to| cell(&cells, from, to).len()).max().unwrap_or(0);
        for line in 0..height {
            let mut row = format!("{:<first$}", if line == 0 { from } else { "" });
            for (to, width) in targets.iter().zip(&widths) {
                let (text, painted) = match cell(&cells, from, to).get(line) {
                    Some(entry) => (entry.mark(), paint(&entry.mark(), entry.tone(), color)),
                    None if line == 0 => ("·".to_owned(), paint("·", Tone::Faint, color)),
                    None => (String::new(), String::new()),
                };
                let pad = width.saturating_sub(text.chars().count());
                let _ = write!(row, "  {painted}{:pad$}", "");
            }
            let _ = writeln!(out, "{}", row.trim_end());
        }
    }
    out
}

type Cells<'a> = BTreeMap<(&'a str, &'a str), Vec<Entry>>;

fn cell<'a>(cells: &'a Cells<'a>, from: &'a str, to: &'a str) -> &'a [Entry] {
    cells.get(&(from, to)).map(Vec::as_slice).unwrap_or_default()
}

/// Names in the order in which the file first uses them.
fn order<'a>(measured: &'a [Measured], name: impl Fn(&'a Measured) -> &'a String) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for one in measured {
        if !names.contains(&name(one).as_str()) {
            names.push(name(one));
        }
    }
    names
}

/// Entries of each cell. Families that agree share one; those that differ are told apart.
fn cells(measured: &[Measured]) -> Cells<'_> {
    let mut groups: BTreeMap<usize, Vec<&Measured>> = BTreeMap::new();
    for one in measured {
        groups.entry(one.index).or_default().push(one);
    }
    let mut cells: Cells<'_> = BTreeMap::new();
    for group in groups.values() {
        let Some(first) = group.first() else { continue };
        let agree = group.iter().all(|one| one.verdict == first.verdict);
        let shown = if agree { &group[..1] } else { &group[..] };
        for one in shown {
            let via = one.via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default();
            let family = match one.family {
                Some(family) if !agree || (group.len() == 1 && family == 6) => format!(" v{family}"),
                _ => String::new(),
            };
            let text = format!("{}{via}{family}", one.service);
            let entry = Entry { verdict: one.verdict, ok: one.ok, text };
            cells.entry((first.from.as_str(), first.to.as_str())).or_default().push(entry);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::super::tests::some;
    use super::*;

    #[test]
    fn cells_failures_and_lines_are_shown() {
        let text = matrix(&some(), false);
        let expected = "\
from \\ to  web        pc      fw
pc         ✓ tcp/80   ·       ?! tcp/22
web        ·          ✗ icmp  ·
host       ✓! tcp/80  ·       ✗! icmp

✓ reachable  ✗ blocked  ? inconclusive  ! not as expected

FAILED line 33: host -> fw icmp over IPv4 at 10.0.0.2: expected reachable, is blocked (timed out <& \"more\">)
FAILED line 34: pc -> fw tcp/22 over IPv4 at 10.0.0.2: expected blocked, is inconclusive (timed out <& \"more\">)
FAILED line 35: host -> web tcp/80 over IPv4 at 10.0.0.2: expected blocked, is reachable (timed out <& \"more\">)

2 of 5 as expected
";
        assert_eq!(text, expected);
    }

    #[test]
    fn families_share_a_cell_until_they_differ() {
        let mut list = vec![some().remove(0), some().remove(0)];
        list[1].family = Some(6);
        assert_eq!(matrix(&list, false).matches("tcp/80").count(), 1);
        list[1].verdict = Verdict::Blocked;
        list[1].ok = false;
        let text = matrix(&list, false);
        assert!(text.contains("✓ tcp/80 v4") && text.contains("✗! tcp/80 v6"), "{text}");
    }
}
