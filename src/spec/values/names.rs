//! Names: of the lab and what is in it, and of modes.

use serde_json::{Value, json};

use crate::mode;
use crate::spec::decode::{Parse, Scalar, Wrong};
use crate::spec::suggest::listing;
use crate::spec::tree::shortened;

/// Longest name, in bytes: a host name label could have 63, but names are joined into others.
pub(crate) const NAME_MAX: usize = 32;
/// A name as a regular expression.
const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";

/// Schema of a name.
pub(crate) fn name_schema() -> Value {
    json!({ "type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_MAX })
}

/// Checks a name: lower-case letters, digits and hyphens, 1 to 32 of them, no hyphen at either end, not reserved.
pub(crate) fn check_name(text: &str, noun: &str, reserved: &[&str]) -> Result<(), Wrong> {
    let rule = "a name is made of `a-z`, `0-9` and `-`, and begins and ends with a letter or digit";
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    if text.is_empty() {
        return Err(Wrong::said(format!("a {noun} name cannot be empty"), rule));
    }
    let ends = bytes.first().copied().is_some_and(fits) && bytes.last().copied().is_some_and(fits);
    if !ends || !bytes.iter().all(|&b| fits(b) || b == b'-') {
        let message = format!("`{}` cannot be the name of a {noun}", shortened(text));
        let mended: String = text
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(NAME_MAX)
            .collect();
        let mended = mended.trim_matches('-');
        let hint = if mended.is_empty() { rule.to_owned() } else { format!("{rule}: `{mended}` would do") };
        return Err(Wrong::said(message, hint));
    }
    if text.len() > NAME_MAX {
        let message = format!("the {noun} name `{}` is {} characters long", shortened(text), text.len());
        return Err(Wrong::said(message, format!("at most {NAME_MAX} are possible")));
    }
    if reserved.contains(&text) {
        let message = format!("`{text}` cannot be the name of a {noun}: the language uses the word itself");
        return Err(Wrong::said(
            message,
            format!("choose another name; reserved are {}", listing(reserved.iter().copied())),
        ));
    }
    Ok(())
}

/// The name of the lab.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LabName(pub(crate) String);

impl Parse for LabName {
    fn expected() -> String {
        "a name".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        check_name(text, "lab", &[])?;
        Ok(Self(text.to_owned()))
    }
    fn schema() -> Value {
        name_schema()
    }
}

/// The id of a mode; whether there is one of that name is checked with what it allows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModeName(pub(crate) String);

impl Parse for ModeName {
    fn expected() -> String {
        "a mode such as `nat` or `vmware/nat` (`netloom modes` lists them)".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        String::parse(scalar).map(Self)
    }
    fn schema() -> Value {
        let ids: Vec<&str> = mode::all().map(|mode| mode.id).collect();
        json!({ "enum": ids })
    }
}
