//! What is wrong with a file, shown at its place.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::error::Error;

/// Longest piece of a source line that is shown, in characters.
const SHOWN: usize = 120;
/// Most errors that are shown; a file with more has one cause that repeats itself.
const MOST: usize = 1000;
/// Most errors that are kept: a file may be made of nothing else, and each takes memory.
const NOTED: usize = 100_000;

/// A place in a file: where something starts and how far it reaches on that line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// Line, from 1; 0 stands for the file as a whole.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters, at least 1.
    pub length: u32,
}

/// A mistake before it is joined with the text it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What mends it.
    pub hint: Option<String>,
}

/// Mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) problems: Vec<Problem>,
}

impl Sink {
    /// Notes a mistake.
    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.maybe(span, message, None);
    }
    /// Notes a mistake and its mend.
    pub(crate) fn hinted(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.maybe(span, message, Some(hint.into()));
    }
    /// Notes a mistake with a mend where there is one.
    pub(crate) fn maybe(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        if self.problems.len() < NOTED {
            // Both may quote the file, which must not steer the terminal of whoever reads them.
            let (message, hint) = (printable(&message.into()), hint.map(|hint| printable(&hint)));
            self.problems.push(Problem { span, message, hint });
        }
    }
}

/// One mistake, at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// File as named by the caller.
    pub file: String,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 when the file as a whole is meant.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What mends it.
    pub hint: Option<String>,
    #[serde(skip)]
    length: u32,
    #[serde(skip)]
    source: Option<String>,
}

/// Every mistake of a file, in the file's order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    errors: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Joins the mistakes with the text they were found in; `None` when there are none.
    #[must_use]
    pub fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Option<Self> {
        if problems.is_empty() {
            return None;
        }
        problems.sort_by_key(|problem| (problem.span.line, problem.span.column));
        problems.dedup();
        let lines: Vec<&str> = text.lines().collect();
        let errors = problems.into_iter().map(|problem| {
            let Span { line, column, length } = problem.span;
            let index = usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
            Diagnostic {
                file: file.to_owned(),
                line,
                column: if line == 0 { 0 } else { column },
                message: problem.message,
                hint: problem.hint,
                length: length.max(1),
                // A mistake at the end of the text is one line past the last.
                source: index.map(|index| lines.get(index).copied().unwrap_or_default().to_owned()),
            }
        });
        Some(Self { errors: errors.collect() })
    }

    /// One mistake that concerns a file as a whole.
    #[must_use]
    pub fn whole_file(file: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            errors: vec![Diagnostic {
                file: file.to_owned(),
                line: 0,
                column: 0,
                message: message.into(),
                hint,
                length: 1,
                source: None,
            }],
        }
    }

    /// The mistakes, in the file's order.
    #[must_use]
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// All of it for people, with the source lines; `color` adds ANSI colours. Ends with a line that counts.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let paint = Paint { color };
        let mut out = String::new();
        for error in self.errors.iter().take(MOST) {
            error.render(&paint, &mut out);
            out.push('\n');
        }
        let file = self.errors.first().map_or("", |error| error.file.as_str());
        let count = self.errors.len();
        if count > MOST {
            let _ = writeln!(out, "… and {} more", count - MOST);
        }
        let noun = if count == 1 { "error" } else { "errors" };
        let _ = writeln!(out, "{} in {}", paint.red(&format!("{count} {noun}")), printable(file));
        out
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Error {
        let file = diagnostics.errors.first().map_or("", |error| error.file.as_str());
        let all = diagnostics.render(false);
        Error::input(format!("{} is no lab that could be built\n\n{}", printable(file), all.trim_end()))
    }
}

impl Diagnostic {
    fn render(&self, paint: &Paint, out: &mut String) {
        let _ = writeln!(out, "{}: {}", paint.red("error"), paint.bold(&self.message));
        let Some(source) = &self.source else {
            let _ = writeln!(out, "{} {}", paint.blue(" -->"), printable(&self.file));
            self.render_hint(paint, "  ", out);
            return;
        };
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let arrow = paint.blue(&format!("{margin}-->"));
        let _ = writeln!(out, "{arrow} {}:{}:{}", printable(&self.file), self.line, self.column);
        let (text, before, width) = self.excerpt(source);
        let bar = paint.blue(&format!("{margin} |"));
        let _ = writeln!(out, "{bar}");
        let _ = writeln!(out, "{} {text}", paint.blue(&format!("{number} |")));
        let _ = writeln!(out, "{bar} {}{}", " ".repeat(before), paint.red(&"^".repeat(width)));
        self.render_hint(paint, &format!("{margin} "), out);
    }

    fn render_hint(&self, paint: &Paint, margin: &str, out: &mut String) {
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{margin}{} {hint}", paint.blue("= hint:"));
        }
    }

    /// The part of the source line around the mistake, how many cells stand before the caret, and how many carets.
    /// Tabs and other control characters become one cell each, so that the carets stay below their text.
    fn excerpt(&self, source: &str) -> (String, usize, usize) {
        let column = usize::try_from(self.column).unwrap_or(1).max(1) - 1;
        let length = usize::try_from(self.length).unwrap_or(1);
        let total = source.chars().count();
        let skip = if total > SHOWN && column > SHOWN / 2 { column - SHOWN / 2 } else { 0 };
        let mut text = String::from(if skip > 0 { "…" } else { "" });
        let mut before = usize::from(skip > 0);
        let mut width = 0;
        for (index, c) in source.chars().enumerate().skip(skip).take(SHOWN) {
            let cell = if c.is_control() || is_invisible(c) { '·' } else { c };
            text.push(if c == '\t' { '→' } else { cell });
            let cells = cells(c);
            if index < column {
                before += cells;
            } else if index < column + length {
                width += cells;
            }
        }
        if skip + SHOWN < total {
            text.push('…');
        }
        let past_end = column.saturating_sub(total);
        (text, before + past_end, width.max(1))
    }
}

/// How many terminal cells a character takes; close enough for the wide scripts of East Asia and emoji.
fn cells(c: char) -> usize {
    match u32::from(c) {
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        0x0300..=0x036f => 0,
        _ => 1,
    }
}

/// Characters that would turn text around or hide it on a terminal.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c), 0x200b..=0x200f | 0x202a..=0x202e | 0x2066..=0x2069 | 0xfeff)
}

/// Text with control characters escaped, so that no name or file can steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A whole text on its way to a terminal: lines, tabs and colours of our own pass, every other control character is
/// escaped. Guests, programs and files have a say in what stands in such texts.
pub(crate) fn steady(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = COLOURS.iter().find(|colour| rest.starts_with(**colour));
        let taken = colour.map_or(c.len_utf8(), |colour| colour.len());
        match c {
            '\n' | '\t' => out.push(c),
            _ if colour.is_some() => out.push_str(&rest[..taken]),
            _ if c.is_control() || is_invisible(c) => out.extend(c.escape_default()),
            _ => out.push(c),
        }
        rest = &rest[taken..];
    }
    out
}

/// Every way in which netloom itself sets a colour (ECMA-48, SGR).
const COLOURS: [&str; 8] =
    ["\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[1;31m", "\x1b[1;34m"];

struct Paint {
    color: bool,
}

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn red(&self, text: &str) -> String {
        self.wrap("1;31", text)
    }
    fn blue(&self, text: &str) -> String {
        self.wrap("1;34", text)
    }
    fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_colours_reach_a_terminal() {
        let ours = format!("a\n\t{}{}\n", Paint { color: true }.red("x"), Paint { color: true }.bold("é"));
        assert_eq!(steady(&ours), ours);
        let odd = "\x1b[2J\x1b]0;title\x07\x1b[8mhidden\x1b[\u{9b}31m\r\x08\u{202e}";
        let shown = steady(odd);
        assert!(!shown.contains(|c: char| c.is_control() || is_invisible(c)), "{shown:?}");
        assert!(shown.starts_with("\\u{1b}[2J\\u{1b}]0;title\\u{7}"), "{shown}");
    }
}
