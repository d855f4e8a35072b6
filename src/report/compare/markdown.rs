//! The matrix as tables in Markdown.

use std::fmt::Write as _;

use super::{agreement, by_system, complaints, mark, short, speed, summary};
use crate::compare::{Comparison, Outcome, Property, Row};

/// A table for each system, what is not as promised, and the sum.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let mut out = String::from(
        "# Networking modes, measured\n\n\
         `pass`: passes; `forward`: only through a port forward; `block`: does not pass, and a control shows that it could \
         have; `?`: nothing proven. `*`: the system does not document it, so the promise is netloom's reading. **Bold with \
         `!`**: not as promised.\n",
    );
    let agreement = agreement(comparison);
    for one in comparison.by_kind() {
        if agreement.is_some() {
            let _ = writeln!(out, "\n# Guests: {}", one.guests);
        }
        one_kind(&mut out, &one);
        out.push_str(&speed::markdown(&one, plain));
    }
    if let Some(agreement) = agreement {
        let _ = writeln!(out, "\n{agreement}");
    }
    out
}

fn one_kind(out: &mut String, comparison: &Comparison) {
    for (system, rows) in by_system(comparison) {
        let _ = write!(out, "\n## {system}\n\n| construct |");
        for property in Property::ALL {
            let _ = write!(out, " {} |", property.words());
        }
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(Property::ALL.len()));
        for row in rows {
            line(out, row);
        }
    }
    let bad: Vec<String> = comparison.rows.iter().flat_map(complaints).collect();
    if !bad.is_empty() {
        out.push_str("\n## Not as promised\n\n");
    }
    for sentence in bad {
        let _ = writeln!(out, "- {}", plain(&sentence));
    }
    let _ = writeln!(out, "\n{}", summary(comparison));
}

fn line(out: &mut String, row: &Row) {
    let state = row.state.as_ref().map(|state| format!(" · {state}")).unwrap_or_default();
    let _ = write!(out, "| {}{} |", plain(short(row)), plain(&state));
    let aside = match &row.outcome {
        Outcome::Measured => None,
        Outcome::Lacking(why) => Some(plain(why)),
        Outcome::Failed(_) => Some("not measured".to_owned()),
    };
    for (index, property) in Property::ALL.into_iter().enumerate() {
        let text = match (&aside, row.cell(property)) {
            (Some(why), _) if index == 0 => format!("_{why}_"),
            (None, Some(cell)) => {
                let mark = plain(&mark(cell));
                if mark.ends_with('!') { format!("**{mark}**") } else { mark }
            }
            _ => String::new(),
        };
        let _ = write!(out, " {text} |");
    }
    out.push('\n');
}

/// Text in which nothing means anything to Markdown.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '_' | '|' | '`' | '\\' | '<' | '>' | '[' | ']') {
            out.push('\\');
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}
