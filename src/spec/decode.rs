//! From the tree to typed values, noting every mistake instead of stopping at the first.

use std::ops::Deref;

use serde_json::{Map, Value, json};

use super::tree::{Kind, Node, Plain, resolve};
use crate::diagnostic::{Sink, Span};

/// Schemas of the mappings met so far, by name.
pub(crate) type Defs = Map<String, Value>;

/// Where a value stands: the key that holds it, and the place to blame for what is missing inside.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    pub(crate) key: &'a str,
    pub(crate) at: Span,
}

impl Cx<'_> {
    /// The key for a message; only the file as a whole has none.
    fn shown(self) -> String {
        if self.key.is_empty() { "the file".to_owned() } else { format!("`{}`", self.key) }
    }
}

/// What can be read from a node.
pub(crate) trait Decode: Sized {
    /// What is expected, for messages and reference tables: `a number from 1 to 4094`.
    fn expected() -> String;
    /// Reads it; `None` when a mistake was noted.
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self>;
    /// Its JSON schema.
    fn schema(defs: &mut Defs) -> Value;
}

/// The message for a node of the wrong type.
pub(crate) fn wrong_type(node: &Node, cx: Cx<'_>, expected: &str, sink: &mut Sink) {
    if node.is_null() {
        let hint = format!("give it a value, or remove `{}`", cx.key);
        let at = Span { length: node.span.length.max(1), ..node.span };
        let at = if at.line == 0 { cx.at } else { at };
        return sink.hinted(at, format!("`{}` has no value; it must be {expected}", cx.key), hint);
    }
    let message = format!("{} must be {expected}, not {}", cx.shown(), node.describe());
    sink.error(node.span, message);
}

/// Gives the last mistake a hint.
pub(crate) fn add_hint(sink: &mut Sink, hint: impl Into<String>) {
    if let Some(last) = sink.problems.last_mut() {
        last.hint = Some(hint.into());
    }
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Slot<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// The key is there; its mistake is already noted, so nothing more is said about it.
    Bad,
    /// The key's value.
    Good(T),
}

impl<T> Slot<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Slot::Good(value) => Some(value),
            _ => None,
        }
    }
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Slot::Absent)
    }
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self, Slot::Bad)
    }
}

/// A value and its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A scalar as written.
#[derive(Clone, Copy)]
pub(crate) struct Scalar<'a> {
    pub(crate) text: &'a str,
    pub(crate) plain: bool,
}

/// Why a scalar is not what was expected; without a message it is of the wrong type.
pub(crate) struct Wrong {
    pub(crate) message: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Wrong {
    pub(crate) fn kind() -> Self {
        Self { message: None, hint: None }
    }
    pub(crate) fn hint(hint: impl Into<String>) -> Self {
        Self { message: None, hint: Some(hint.into()) }
    }
    pub(crate) fn said(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: Some(message.into()), hint: Some(hint.into()) }
    }
}

impl<'a> Scalar<'a> {
    /// The text, when it is text by YAML's rules.
    pub(crate) fn text(self) -> Result<&'a str, Wrong> {
        match resolve(self.text, self.plain) {
            Plain::Text => Ok(self.text),
            Plain::Null => Err(Wrong::kind()),
            _ => Err(Wrong::hint(format!("put it in quotes to make it text: \"{}\"", self.text))),
        }
    }
    /// The whole number; saturates.
    pub(crate) fn integer(self) -> Result<i64, Wrong> {
        match resolve(self.text, self.plain) {
            Plain::Int => {
                let radix = |prefix, radix| {
                    self.text
                        .strip_prefix(prefix)
                        .map(|rest| i64::from_str_radix(rest, radix).unwrap_or(i64::MAX))
                };
                let negative = self.text.starts_with('-');
                let limit = if negative { i64::MIN } else { i64::MAX };
                Ok(radix("0x", 16)
                    .or_else(|| radix("0o", 8))
                    .unwrap_or_else(|| self.text.parse().unwrap_or(limit)))
            }
            Plain::Text if !self.plain && self.text.parse::<i64>().is_ok() => {
                Err(Wrong::hint(format!("remove the quotes: {}", self.text)))
            }
            _ => Err(Wrong::kind()),
        }
    }
}

/// What can be read from a scalar.
pub(crate) trait Parse: Sized {
    /// See [`Decode::expected`].
    fn expected() -> String;
    /// Reads it.
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong>;
    /// Its JSON schema.
    fn schema() -> Value;
}

impl<T: Parse> Decode for At<T> {
    fn expected() -> String {
        T::expected()
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        let Kind::Scalar { text, plain } = &node.kind else {
            wrong_type(node, cx, &T::expected(), sink);
            return None;
        };
        match T::parse(Scalar { text, plain: *plain }) {
            Ok(value) => Some(At { value, span: node.span }),
            Err(Wrong { message: Some(message), hint }) => {
                sink.maybe(node.span, message, hint);
                None
            }
            Err(Wrong { message: None, hint }) => {
                wrong_type(node, cx, &T::expected(), sink);
                let number = resolve(text, *plain) == Plain::Int;
                if number && ["vlan", "trunk", "native"].contains(&cx.key) {
                    add_hint(sink, "VLANs go by their names in the network's `vlans`, not by VID");
                } else if let Some(hint) = hint {
                    add_hint(sink, hint);
                }
                None
            }
        }
    }
    fn schema(_: &mut Defs) -> Value {
        T::schema()
    }
}

/// A list. `MIN` and `MAX` are for the schema; what a wrong length means is said where the list is checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List<T, const MIN: usize = 0, const MAX: usize = { usize::MAX }> {
    pub(crate) span: Span,
    /// Items that could be read.
    pub(crate) items: Vec<T>,
    /// Whether some could not.
    pub(crate) broken: bool,
}

fn decode_items<T: Decode, const MIN: usize, const MAX: usize>(
    items: &[std::rc::Rc<Node>],
    span: Span,
    cx: Cx<'_>,
    sink: &mut Sink,
) -> List<T, MIN, MAX> {
    let mut list = List { span, items: Vec::with_capacity(items.len()), broken: false };
    for item in items {
        match T::decode(item, Cx { key: cx.key, at: item.span }, sink) {
            Some(value) => list.items.push(value),
            None => list.broken = true,
        }
    }
    list
}

impl<T: Decode, const MIN: usize, const MAX: usize> Decode for List<T, MIN, MAX> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        match &node.kind {
            Kind::Sequence(items) => Some(decode_items(items, node.span, cx, sink)),
            Kind::Mapping(_) => {
                wrong_type(node, cx, "a list", sink);
                add_hint(sink, "begin each item with `- `");
                None
            }
            Kind::Scalar { .. } => {
                wrong_type(node, cx, "a list", sink);
                None
            }
        }
    }
    fn schema(defs: &mut Defs) -> Value {
        let mut schema = json!({ "type": "array", "items": T::schema(defs) });
        if MIN > 0 {
            schema["minItems"] = MIN.into();
        }
        if MAX < usize::MAX {
            schema["maxItems"] = MAX.into();
        }
        schema
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Many<T>(pub(crate) List<T>);

impl<T> Deref for Many<T> {
    type Target = List<T>;
    fn deref(&self) -> &List<T> {
        &self.0
    }
}

impl<T: Decode> Decode for Many<T> {
    fn expected() -> String {
        format!("{}, or a list of them", T::expected())
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        if let Kind::Sequence(items) = &node.kind {
            return Some(Many(decode_items(items, node.span, cx, sink)));
        }
        let item = T::decode(node, cx, sink)?;
        Some(Many(List { span: node.span, items: vec![item], broken: false }))
    }
    fn schema(defs: &mut Defs) -> Value {
        let one = T::schema(defs);
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
