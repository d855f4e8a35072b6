//! The YAML file's mirror, with source spans; no logic.

pub(crate) mod addresses;
pub(crate) mod decode;
pub(crate) mod file;
pub(crate) mod mapping;
pub mod reference;
pub(crate) mod suggest;
pub(crate) mod tree;
pub(crate) mod values;

use decode::{Cx, Decode, Defs};
use serde_json::{Value, json};

use crate::diagnostic::{Sink, Span};

/// Reads the text's one document into the mirror, noting every mistake; `None` when nothing could be read at all.
pub(crate) fn read(text: &str, sink: &mut Sink) -> Option<file::File> {
    let root = tree::parse(text, sink)?;
    let at = Span { line: 1, column: 1, length: 1 };
    file::File::decode(&root, Cx { key: "", at }, sink)
}

/// The JSON Schema (draft 2020-12) of the language: shapes and spellings. What names refer to, and whether addresses
/// fit, no schema can say; `netloom validate` does.
#[must_use]
pub fn schema() -> Value {
    let mut defs = Defs::new();
    let root = file::File::schema(&mut defs);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netloom lab",
        "$ref": root["$ref"],
        "$defs": defs,
    })
}
