//! YAML text to a tree in which every node knows its place. Bounded in size, depth and alias expansion.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span as Mark};

use crate::diagnostic::{Sink, Span, printable};

/// Deepest nesting; the language itself needs 8.
const DEPTH: usize = 32;
/// Most nodes that aliases may add to a file.
const EXPANSION: usize = 100_000;

/// A node and its place.
#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) span: Span,
    pub(crate) kind: Kind<'t>,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Kind<'t> {
    /// Text as written; `plain` when not quoted, so that `5` may be a number.
    Scalar { text: Cow<'t, str>, plain: bool },
    /// A list.
    Sequence(Vec<Rc<Node<'t>>>),
    /// Keys and values in the file's order; duplicates are still there.
    Mapping(Vec<(Rc<Node<'t>>, Rc<Node<'t>>)>),
}

impl Node<'_> {
    /// What it is, for "found …".
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
            Kind::Scalar { text, plain } => match resolve(text, *plain) {
                Plain::Null => "nothing".to_owned(),
                Plain::Bool(value) => format!("`{value}`"),
                Plain::Int | Plain::Float => format!("the number {}", printable(text)),
                Plain::Text if text.is_empty() => "an empty text".to_owned(),
                Plain::Text => format!("`{}`", shortened(text)),
            },
        }
    }
    /// Whether it is `null` or left empty.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain } if resolve(text, *plain) == Plain::Null)
    }
}

/// Text for a message: control characters escaped, long text cut.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return printable(text);
    }
    let cut: String = text.chars().take(MOST).collect();
    format!("{}…", printable(&cut))
}

/// What a scalar means in YAML 1.2's core schema.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// Empty, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int,
    /// Another number.
    Float,
    /// Anything else.
    Text,
}

/// Resolves a scalar by YAML 1.2's core schema (section 10.3.2).
pub(crate) fn resolve(text: &str, plain: bool) -> Plain {
    if !plain {
        return Plain::Text;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Plain::Int;
    }
    let radix = |prefix, radix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest: &str| !rest.is_empty() && rest.chars().all(|c: char| c.is_digit(radix)))
    };
    if radix("0x", 16) || radix("0o", 8) {
        return Plain::Int;
    }
    let lower = digits.to_ascii_lowercase();
    if lower == ".inf" || text.eq_ignore_ascii_case(".nan") || is_float(digits) {
        return Plain::Float;
    }
    Plain::Text
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if digits.is_empty() || !all_digits(digits) {
            return false;
        }
    }
    match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => !mantissa.is_empty() && all_digits(mantissa),
    }
}

/// Reads one document; `None` when the text has mistakes (noted in `sink`).
pub(crate) fn parse<'t>(text: &'t str, sink: &mut Sink) -> Option<Rc<Node<'t>>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH + 1,
        block_nesting_limit: DEPTH + 1,
    };
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let failed = match next {
            Ok((event, mark)) => builder.event(event, mark),
            Err(error) => Err(syntax(&error, text)),
        };
        if let Err(fault) = failed {
            sink.maybe(fault.span, fault.message, fault.hint);
            return None;
        }
    }
    if builder.root.is_none() {
        sink.hinted(
            Span { line: 1, column: 1, length: 1 },
            "the file is empty",
            "begin with the lab's name, such as `lab: my-lab`",
        );
    }
    builder.root
}

/// Why reading stopped.
struct Fault {
    span: Span,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn new(span: Span, message: &str, hint: &str) -> Self {
        Self { span, message: message.to_owned(), hint: Some(hint.to_owned()) }
    }
}

/// A collection whose end has not come yet.
struct Open<'t> {
    span: Span,
    anchor: usize,
    before: usize,
    mapping: bool,
    items: Vec<Rc<Node<'t>>>,
}

#[derive(Default)]
struct Builder<'t> {
    stack: Vec<Open<'t>>,
    /// Finished anchored nodes and how many nodes each stands for.
    anchors: HashMap<usize, (Rc<Node<'t>>, usize)>,
    /// Nodes so far, aliases counted as what they stand for.
    nodes: usize,
    expanded: usize,
    documents: usize,
    root: Option<Rc<Node<'t>>>,
}

impl<'t> Builder<'t> {
    fn event(&mut self, event: Event<'t>, mark: Mark) -> Result<(), Fault> {
        let span = span(&mark);
        if event.tag().is_some() {
            let hint = "remove the tag; put text that looks like a number in quotes";
            return Err(Fault::new(span, "YAML tags such as `!!str` are not part of the language", hint));
        }
        match event {
            Event::DocumentStart(..) => self.document(span)?,
            Event::Scalar(text, style, anchor, _) => {
                self.nodes += 1;
                let plain = style == ScalarStyle::Plain;
                let node = Node { span, kind: Kind::Scalar { text, plain } };
                self.finish(Rc::new(node), anchor, 1);
            }
            Event::SequenceStart(_, anchor, _) => self.open(span, anchor, false)?,
            Event::MappingStart(_, anchor, _) => self.open(span, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(span, anchor)?,
            _ => {}
        }
        Ok(())
    }

    fn document(&mut self, span: Span) -> Result<(), Fault> {
        self.documents += 1;
        if self.documents > 1 {
            let hint = "one file describes one lab: put the second into a file of its own";
            return Err(Fault::new(span, "a second YAML document begins here", hint));
        }
        Ok(())
    }

    fn open(&mut self, span: Span, anchor: usize, mapping: bool) -> Result<(), Fault> {
        if self.stack.len() >= DEPTH {
            return Err(too_deep(span));
        }
        self.nodes += 1;
        self.stack.push(Open { span, anchor, before: self.nodes, mapping, items: Vec::new() });
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.stack.pop() else { return };
        let kind = if open.mapping {
            let mut pairs = Vec::with_capacity(open.items.len() / 2);
            let mut items = open.items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Kind::Mapping(pairs)
        } else {
            Kind::Sequence(open.items)
        };
        let size = self.nodes - open.before + 1;
        self.finish(Rc::new(Node { span: open.span, kind }), open.anchor, size);
    }

    fn alias(&mut self, span: Span, anchor: usize) -> Result<(), Fault> {
        let Some((node, size)) = self.anchors.get(&anchor).map(|(node, size)| (Rc::clone(node), *size))
        else {
            let hint = "an alias may stand for an earlier, finished part of the file only";
            return Err(Fault::new(span, "this alias stands for a part of the file that contains it", hint));
        };
        self.nodes += size;
        self.expanded += size;
        if self.expanded > EXPANSION {
            let hint = "write the parts out, or generate a file without aliases";
            let message = format!("the file's aliases expand to more than {EXPANSION} nodes");
            return Err(Fault::new(span, &message, hint));
        }
        self.finish(node, 0, size);
        Ok(())
    }

    fn finish(&mut self, node: Rc<Node<'t>>, anchor: usize, size: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (Rc::clone(&node), size));
        }
        match self.stack.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
    }
}

fn too_deep(span: Span) -> Fault {
    let message = format!("the file is nested deeper than {DEPTH} levels");
    Fault::new(
        span,
        &message,
        "no part of the language nests that deep: look for brackets that are not closed",
    )
}

/// A parser's mark to a place. Marks count lines from 1 and columns from 0.
fn span(mark: &Mark) -> Span {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let length = if mark.end.line() == mark.start.line() {
        mark.end.col().saturating_sub(mark.start.col())
    } else {
        1
    };
    Span {
        line: number(mark.start.line()),
        column: number(mark.start.col() + 1),
        length: number(length.max(1)),
    }
}

/// A syntax error, with the mend for the usual ones.
fn syntax(error: &ScanError, text: &str) -> Fault {
    use granit_parser::ErrorKind as E;
    let at = error.marker();
    let span = span(&Mark::empty(*at));
    let line = text.lines().nth(at.line().saturating_sub(1)).unwrap_or_default();
    if matches!(error.kind(), E::RecursionLimitExceeded) {
        return too_deep(span);
    }
    let tab = line.find('\t').filter(|place| line[..*place].trim().is_empty());
    if let Some(place) = tab {
        // Only blanks stand before it, so its byte is its character.
        let column = u32::try_from(place + 1).unwrap_or(1);
        let hint = "YAML does not indent with tabs: use spaces";
        return Fault::new(
            Span { column, length: 1, ..span },
            "not valid YAML: a tab in the indentation",
            hint,
        );
    }
    let hint = match error.kind() {
        E::UnknownAnchor => {
            "write `&name` before the first use of `*name`; text that begins with `*` needs quotes"
        }
        E::ExpectedFlowMappingSeparator | E::UnexpectedEofFlowMapping => {
            "close `{` with `}`, and put `,` between entries"
        }
        E::ExpectedFlowSequenceSeparator | E::UnexpectedEofFlowSequence => {
            "close `[` with `]`, and put `,` between items"
        }
        E::UnclosedFlowCollection { .. }
        | E::MismatchedFlowCollectionEnd { .. }
        | E::MisplacedFlowCollectionEnd => "each `[` needs its `]` and each `{` its `}`",
        E::UnclosedQuotedScalar => "close the quotes",
        E::MappingValueNotAllowed | E::MappingKeyNotAllowed | E::InvalidColonPlacement => {
            "one `key: value` a line; text that has `: ` in it needs quotes"
        }
        E::ExpectedBlockMappingKey
        | E::SimpleKeyExpected
        | E::InvalidIndentation
        | E::ExpectedBlockSequenceEntry => {
            "check the indentation: entries of one mapping or list start in the same column, and each key ends in `:`"
        }
        E::UnexpectedCharacter { .. } => "text that begins with this character needs quotes",
        _ => "see https://yaml.org/spec/1.2.2/ for the syntax, or put the text in quotes",
    };
    let said = error.info();
    let said = said.rsplit_once(", ").map_or(said.as_str(), |(_, last)| last);
    Fault { span, message: format!("not valid YAML: {}", printable(said)), hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_resolve_as_yaml_1_2_says() {
        for (text, want) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("yes", Plain::Text),
            ("on", Plain::Text),
            ("true", Plain::Bool(true)),
            ("0x1F", Plain::Int),
            ("0o17", Plain::Int),
            ("-12", Plain::Int),
            ("1e3", Plain::Float),
            (".5", Plain::Float),
            ("1.", Plain::Float),
            (".", Plain::Text),
            ("e3", Plain::Text),
            ("10.0.0.1", Plain::Text),
            ("52:54:00:00:00:01", Plain::Text),
            ("1_000", Plain::Text),
        ] {
            assert_eq!(resolve(text, true), want, "{text}");
            assert_eq!(resolve(text, false), Plain::Text, "{text} quoted");
        }
    }

    #[test]
    fn places_count_from_one() {
        let mut sink = Sink::default();
        let root = parse("a: 1\nbb:\n  - \"x y\"\n", &mut sink).unwrap();
        let Kind::Mapping(pairs) = &root.kind else { panic!("{root:?}") };
        assert_eq!(pairs[1].0.span, Span { line: 2, column: 1, length: 2 });
        let Kind::Sequence(items) = &pairs[1].1.kind else { panic!("{root:?}") };
        assert_eq!(items[0].span, Span { line: 3, column: 5, length: 5 });
    }
}
