//! From the tree to typed values, noting every mistake instead of stopping at the first.

use std::ops::Deref;

use serde_json::{Map, Value, json};

use super::suggest::nearest;
use super::tree::{Kind, Node, Plain, resolve, shortened};
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
fn add_hint(sink: &mut Sink, hint: impl Into<String>) {
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

/// What an entry of a table is called in messages.
pub(crate) trait TableKey {
    /// `network`, `guest`, `VLAN`, `zone`.
    const NOUN: &'static str;
    /// Names that mean something else.
    const RESERVED: &'static [&'static str];
}

/// A mapping whose keys are names the file chooses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table<K, T> {
    pub(crate) span: Span,
    /// Names and what they hold, in the file's order; `None` where a mistake was noted.
    pub(crate) entries: Vec<(At<String>, Option<T>)>,
    pub(crate) key: std::marker::PhantomData<K>,
}

impl<K: TableKey, T: Decode> Decode for Table<K, T> {
    fn expected() -> String {
        format!("a mapping from {} names to {}", K::NOUN, T::expected())
    }
    fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
        let Kind::Mapping(pairs) = &node.kind else {
            wrong_type(node, cx, &format!("a mapping from {} names", K::NOUN), sink);
            if matches!(&node.kind, Kind::Sequence(_)) {
                add_hint(sink, "begin each entry with its name and `:`, without `- `");
            }
            return None;
        };
        let mut entries: Vec<(At<String>, Option<T>)> = Vec::with_capacity(pairs.len());
        let mut seen = std::collections::HashMap::new();
        for (key, value) in pairs {
            let Kind::Scalar { text, .. } = &key.kind else {
                sink.error(key.span, format!("a {} name must be text, not {}", K::NOUN, key.describe()));
                continue;
            };
            if merge_key(key, sink) {
                continue;
            }
            if let Some(line) = seen.insert(text.clone(), key.span.line) {
                let message =
                    format!("the {} `{}` is defined twice, first in line {line}", K::NOUN, shortened(text));
                sink.hinted(key.span, message, "rename or remove one of them");
                seen.insert(text.clone(), line);
                continue;
            }
            if let Err(wrong) = super::values::check_name(text, K::NOUN, K::RESERVED) {
                sink.maybe(key.span, wrong.message.unwrap_or_default(), wrong.hint);
            }
            let decoded = T::decode(value, Cx { key: text, at: key.span }, sink);
            entries.push((At { value: text.clone(), span: key.span }, decoded));
        }
        Some(Table { span: node.span, entries, key: std::marker::PhantomData })
    }
    fn schema(defs: &mut Defs) -> Value {
        let mut names = super::values::name_schema();
        if !K::RESERVED.is_empty() {
            names["not"] = json!({ "enum": K::RESERVED });
        }
        json!({ "type": "object", "propertyNames": names, "additionalProperties": T::schema(defs) })
    }
}

/// YAML 1.1's `<<`, which 1.2 does not have.
fn merge_key(key: &Node, sink: &mut Sink) -> bool {
    let merge = matches!(&key.kind, Kind::Scalar { text, plain: true } if text == "<<");
    if merge {
        let hint = "write the keys out, or use an alias for a whole value";
        sink.hinted(key.span, "merge keys (`<<`) are not part of YAML 1.2", hint);
    }
    merge
}

/// A key of a mapping, for the schema and the reference tables.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) expected: fn() -> String,
    pub(crate) schema: fn(&mut Defs) -> Value,
    pub(crate) doc: &'static str,
}

/// A mapping with fixed keys; made by `mapping!`.
pub(crate) trait Mapping: Decode {
    /// Name in the schema and in the reference tables.
    const NAME: &'static str;
    /// One sentence.
    const DOC: &'static str;
    /// Its keys.
    fn keys() -> Vec<Key>;
}

/// The schema of a mapping: a reference into `defs`.
pub(crate) fn mapping_schema<T: Mapping>(defs: &mut Defs) -> Value {
    if !defs.contains_key(T::NAME) {
        defs.insert(T::NAME.to_owned(), Value::Null);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for key in T::keys() {
            let mut schema = (key.schema)(defs);
            if let Some(object) = schema.as_object_mut() {
                object.insert("description".to_owned(), key.doc.into());
            }
            properties.insert(key.name.to_owned(), schema);
            if key.required {
                required.push(key.name);
            }
        }
        let schema = json!({
            "type": "object",
            "description": T::DOC,
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        defs.insert(T::NAME.to_owned(), schema);
    }
    json!({ "$ref": format!("#/$defs/{}", T::NAME) })
}

/// The members of a mapping with fixed keys, by position of the key.
pub(crate) struct Members<'a> {
    at: Span,
    found: Vec<Option<(&'a Node, &'a Node)>>,
    /// Keys that are not there because of a mistake that is already noted: misspelt, or in a refused merge key.
    excused: Vec<bool>,
}

impl<'a> Members<'a> {
    /// Sorts a mapping's members by key; notes unknown and duplicate keys.
    pub(crate) fn open(
        node: &'a Node,
        cx: Cx<'_>,
        noun: &str,
        keys: &[&str],
        sink: &mut Sink,
    ) -> Option<Self> {
        let Kind::Mapping(pairs) = &node.kind else {
            let what = if cx.key.is_empty() { "a mapping".to_owned() } else { format!("{noun} (a mapping)") };
            wrong_type(node, cx, &what, sink);
            add_hint(sink, format!("its keys are {}", keys.join(", ")));
            return None;
        };
        let mut found: Vec<Option<(&Node, &Node)>> = vec![None; keys.len()];
        let mut excused = vec![false; keys.len()];
        for (key, value) in pairs {
            let Kind::Scalar { text, .. } = &key.kind else {
                sink.error(key.span, format!("a key of {noun} must be text, not {}", key.describe()));
                continue;
            };
            if merge_key(key, sink) {
                excused.fill(true);
                continue;
            }
            let Some(index) = keys.iter().position(|known| known == text) else {
                let message = format!("unknown key `{}` in {noun}", shortened(text));
                let meant = nearest(text, keys.iter().copied());
                if let Some(index) = keys.iter().position(|key| Some(*key) == meant) {
                    excused[index] = true;
                }
                let hint = meant.map_or_else(
                    || format!("its keys are {}", keys.join(", ")),
                    |key| format!("did you mean `{key}`?"),
                );
                sink.hinted(key.span, message, hint);
                continue;
            };
            if let Some((first, _)) = found[index] {
                let message = format!("the key `{text}` appears twice, first in line {}", first.span.line);
                sink.hinted(key.span, message, "remove one of them");
                continue;
            }
            found[index] = Some((key, value));
        }
        Some(Self { at: cx.at, found, excused })
    }

    /// Reads the member of one key; a required one comes with what it means.
    pub(crate) fn take<T: Decode>(
        &self,
        index: usize,
        key: &str,
        noun: &str,
        required: Option<&str>,
        sink: &mut Sink,
    ) -> Slot<T> {
        let Some((name, value)) = self.found.get(index).copied().flatten() else {
            return match required {
                _ if self.excused.get(index).copied().unwrap_or_default() => Slot::Bad,
                None => Slot::Absent,
                Some(doc) => {
                    sink.hinted(
                        self.at,
                        format!("{noun} needs the key `{key}`"),
                        format!("add `{key}: …`: {doc}"),
                    );
                    Slot::Bad
                }
            };
        };
        // An empty value has no text to point at: show its key instead.
        let cx = Cx { key, at: name.span };
        if value.is_null() {
            let empty = Node { span: name.span, kind: Kind::Scalar { text: String::new(), plain: true } };
            wrong_type(&empty, cx, &T::expected(), sink);
            return Slot::Bad;
        }
        T::decode(value, cx, sink).map_or(Slot::Bad, Slot::Good)
    }
}

/// Declares a mapping of the language: its struct, how it is read, its schema and its reference table, in one place.
macro_rules! mapping {
    (
        $noun:literal, $doc:literal,
        $name:ident { $( $field:ident : $need:ident $ty:ty = $fdoc:literal, )+ }
    ) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name {
            /// Where to show what is wrong with the whole.
            pub(crate) at: crate::diagnostic::Span,
            $( #[doc = $fdoc] pub(crate) $field: Slot<$ty>, )+
        }
        impl Decode for $name {
            fn expected() -> String {
                concat!($noun, " (a mapping)").to_owned()
            }
            fn decode(node: &Node, cx: Cx<'_>, sink: &mut Sink) -> Option<Self> {
                const KEYS: &[&str] = &[$( stringify!($field) ),+];
                let members = Members::open(node, cx, $noun, KEYS, sink)?;
                let mut index = 0;
                $(
                    let $field = members.take::<$ty>(
                        index,
                        stringify!($field),
                        $noun,
                        if stringify!($need) == "required" { Some($fdoc) } else { None },
                        sink,
                    );
                    index += 1;
                )+
                let _ = index;
                Some(Self { at: cx.at, $( $field ),+ })
            }
            fn schema(defs: &mut Defs) -> serde_json::Value {
                mapping_schema::<Self>(defs)
            }
        }
        impl Mapping for $name {
            const NAME: &'static str = stringify!($name);
            const DOC: &'static str = $doc;
            fn keys() -> Vec<Key> {
                vec![$( Key {
                    name: stringify!($field),
                    required: stringify!($need) == "required",
                    expected: <$ty as Decode>::expected,
                    schema: <$ty as Decode>::schema,
                    doc: $fdoc,
                } ),+]
            }
        }
    };
}
pub(crate) use mapping;
