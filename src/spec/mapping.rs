//! Mappings: tables whose keys the file chooses, and mappings with fixed keys, each declared once by `mapping!`.

use std::collections::HashMap;
use std::marker::PhantomData;

use serde_json::{Map, Value, json};

use super::decode::{At, Cx, Decode, Defs, Slot, add_hint, wrong_type};
use super::suggest::nearest;
use super::tree::{Kind, Node, shortened};
use super::values::{check_name, name_schema};
use crate::diagnostic::{Sink, Span};

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
    pub(crate) key: PhantomData<K>,
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
        let mut seen = HashMap::new();
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
            if let Err(wrong) = check_name(text, K::NOUN, K::RESERVED) {
                sink.maybe(key.span, wrong.message.unwrap_or_default(), wrong.hint);
            }
            let decoded = T::decode(value, Cx { key: text, at: key.span }, sink);
            entries.push((At { value: text.to_string(), span: key.span }, decoded));
        }
        Some(Table { span: node.span, entries, key: PhantomData })
    }
    fn schema(defs: &mut Defs) -> Value {
        let mut names = name_schema();
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
    found: Vec<Option<(&'a Node<'a>, &'a Node<'a>)>>,
    /// Keys that are not there because of a mistake that is already noted: misspelt, or in a refused merge key.
    excused: Vec<bool>,
}

impl<'a> Members<'a> {
    /// Sorts a mapping's members by key; notes unknown and duplicate keys.
    pub(crate) fn open(
        node: &'a Node<'a>,
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
        let mut found: Vec<Option<(&Node<'a>, &Node<'a>)>> = vec![None; keys.len()];
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
            let Some(index) = keys.iter().position(|known| *known == text.as_ref()) else {
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
            let empty = Node { span: name.span, kind: Kind::Scalar { text: "".into(), plain: true } };
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
