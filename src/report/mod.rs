//! Renders what was measured or found: text for people, JUnit for CI. No I/O.

pub mod compare;
mod junit;
mod matrix;

pub use junit::junit;
pub use matrix::matrix;

use std::io::IsTerminal;

use crate::diagnostic::printable;

/// A table with left-aligned columns two blanks apart; no trailing blanks. Guests and other programs on the host choose
/// some of the words in it, so control characters are shown and not sent.
#[must_use]
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let rows = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect());
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> =
        (0..columns).map(|column| all.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in all {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Whether text on stdout should be coloured: it is a terminal, and neither `NO_COLOR` (when not empty) nor a dumb
/// terminal says no.
#[must_use]
pub fn use_color() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !forbidden && !dumb
}

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As hoped.
    Good,
    /// Not as hoped.
    Bad,
    /// Nothing proven.
    Doubtful,
    /// Less important.
    Faint,
}

/// Text in the colour of its tone, or as it is.
#[must_use]
pub fn paint(text: &str, tone: Tone, color: bool) -> String {
    // SGR parameters (ECMA-48): green, red, yellow, faint.
    let code = match tone {
        Tone::Good => 32,
        Tone::Bad => 31,
        Tone::Doubtful => 33,
        Tone::Faint => 2,
    };
    if color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::probe::{Measured, Verdict};
    use crate::topology::{ExpectedVerdict, Protocol, Service};

    /// A measurement; `ok` follows from the two verdicts.
    pub(crate) fn measured(
        line: usize,
        (from, to): (&str, &str),
        port: u16,
        expected: ExpectedVerdict,
        verdict: Verdict,
    ) -> Measured {
        let ok = matches!(
            (expected, verdict),
            (ExpectedVerdict::Reachable, Verdict::Reachable) | (ExpectedVerdict::Blocked, Verdict::Blocked)
        );
        let protocol = if port == 0 { Protocol::Icmp } else { Protocol::Tcp };
        Measured {
            index: line,
            line,
            from: from.into(),
            to: to.into(),
            service: Service { protocol, port },
            via: None,
            family: Some(4),
            address: Some([10, 0, 0, 2].into()),
            expected,
            verdict,
            ok,
            detail: "timed out <& \"more\">".into(),
            rtt_us: None,
            control: Some("web itself answers".into()),
        }
    }

    pub(crate) fn some() -> Vec<Measured> {
        use ExpectedVerdict::{Blocked as NotThere, Reachable as There};
        vec![
            measured(31, ("pc", "web"), 80, There, Verdict::Reachable),
            measured(32, ("web", "pc"), 0, NotThere, Verdict::Blocked),
            measured(33, ("host", "fw"), 0, There, Verdict::Blocked),
            measured(34, ("pc", "fw"), 22, NotThere, Verdict::Inconclusive),
            measured(35, ("host", "web"), 80, NotThere, Verdict::Reachable),
        ]
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["hci-firewall".to_owned(), "up".to_owned()], vec!["b".to_owned(), String::new()]];
        assert_eq!(table(&["LAB", "STATE"], &rows), "LAB           STATE\nhci-firewall  up\nb\n");
        assert_eq!(table(&["LAB"], &[]), "LAB\n");
    }

    #[test]
    fn colour_is_only_where_it_is_asked_for() {
        assert!(!matrix(&some(), false).contains('\u{1b}'));
        assert!(matrix(&some(), true).contains('\u{1b}'));
    }
}
