//! The scalars of the language: how each is written, what is wrong with it otherwise, and its schema.

mod names;
mod services;

use serde_json::{Value, json};

use super::decode::{Parse, Scalar, Wrong};
use super::suggest::{did_you_mean, listing};
use super::tree::shortened;
use crate::mode::Egress;
use crate::topology::{ExpectedVerdict, GuestKind, Pvlan, RuleAction};

pub(crate) use names::{LabName, ModeName, check_name, name_schema};
pub(crate) use services::Ports;

/// A reference to something the file names elsewhere; whether it is there is checked later, with all names at hand.
impl Parse for String {
    fn expected() -> String {
        "a name".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        if text.is_empty() { Err(Wrong::kind()) } else { Ok(text.to_owned()) }
    }
    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A firewall flavour.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flavour(pub(crate) &'static str);

/// Every flavour of this version.
const FLAVOURS: &[&str] = &["linux"];

impl Parse for Flavour {
    fn expected() -> String {
        "a firewall flavour: `linux`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        FLAVOURS.iter().find(|flavour| **flavour == text).map(|flavour| Self(flavour)).ok_or_else(|| {
            let hint = format!("the flavours are: {}", listing(FLAVOURS.iter().copied()));
            Wrong::said(format!("there is no firewall flavour `{}`", shortened(text)), hint)
        })
    }
    fn schema() -> Value {
        json!({ "enum": FLAVOURS })
    }
}

impl Parse for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        match (scalar.plain, scalar.text) {
            (true, "true" | "True" | "TRUE") => Ok(true),
            (true, "false" | "False" | "FALSE") => Ok(false),
            (_, text) => Err(match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => Wrong::hint("write `true`"),
                "no" | "off" | "n" | "false" => Wrong::hint("write `false`"),
                _ => Wrong::kind(),
            }),
        }
    }
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// A whole number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounded<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<const MIN: u32, const MAX: u32> Parse for Bounded<MIN, MAX> {
    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let value = scalar.integer()?;
        u32::try_from(value)
            .ok()
            .filter(|value| (MIN..=MAX).contains(value))
            .map(Self)
            .ok_or_else(Wrong::kind)
    }
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// An MTU in bytes; IPv4 needs 576 (RFC 791), a VM's NIC carries 65535 at most.
pub(crate) type Mtu = Bounded<576, 65535>;
/// How many CPUs.
pub(crate) type Cpus = Bounded<1, 255>;

/// The number of a TCP or UDP port.
pub(crate) type PortNumber = Bounded<1, 65535>;

/// What a port is in a private VLAN.
impl Parse for Pvlan {
    fn expected() -> String {
        "`promiscuous`, `isolated`, or the name of a community".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        Ok(match scalar.text()? {
            "promiscuous" => Self::Promiscuous,
            "isolated" => Self::Isolated,
            name => {
                check_name(name, "community", &["community"])?;
                Self::Community(name.to_owned())
            }
        })
    }
    fn schema() -> Value {
        name_schema()
    }
}

/// A VID. 0 and 4095 are reserved by IEEE 802.1Q.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vid(pub(crate) u16);

impl Parse for Vid {
    fn expected() -> String {
        "a VID, a whole number from 1 to 4094".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let value = scalar.integer()?;
        match u16::try_from(value) {
            Ok(vid) if (1..=4094).contains(&vid) => Ok(Self(vid)),
            _ => Err(Wrong::said(
                format!("the VID {value} is out of range"),
                "a VID is a whole number from 1 to 4094 (0 and 4095 are reserved)",
            )),
        }
    }
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": 4094 })
    }
}

/// A VXLAN network identifier (RFC 7348): 24 bits, of which 0 is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vni(pub(crate) u32);

impl Parse for Vni {
    fn expected() -> String {
        "a VXLAN network identifier, a whole number from 1 to 16777215".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let value = scalar.integer()?;
        match u32::try_from(value) {
            Ok(vni) if (1..=0xff_ffff).contains(&vni) => Ok(Self(vni)),
            _ => Err(Wrong::said(
                format!("the VXLAN network identifier {value} is out of range"),
                "it is a whole number from 1 to 16777215",
            )),
        }
    }
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": 0xff_ffff })
    }
}

/// Memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) u32);

/// Least memory in MiB the built-in image boots in.
pub(crate) const MEMORY_MIN: u32 = 96;
/// Most memory in MiB: 1 TiB.
const MEMORY_MAX: u32 = 1024 * 1024;

impl Parse for Memory {
    fn expected() -> String {
        "an amount such as `256 MiB` or `1 GiB`, or a whole number of MiB".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let mib = match scalar.integer() {
            Ok(number) => u64::try_from(number).unwrap_or(0),
            Err(_) => memory_text(scalar)?,
        };
        match u32::try_from(mib) {
            Ok(mib) if (MEMORY_MIN..=MEMORY_MAX).contains(&mib) => Ok(Self(mib)),
            Ok(mib) if mib < MEMORY_MIN => Err(Wrong::said(
                format!("{} is too little memory", shortened(scalar.text)),
                format!("a guest needs at least {MEMORY_MIN} MiB"),
            )),
            _ => Err(Wrong::said(
                format!("{} is too much memory", shortened(scalar.text)),
                "at most 1024 GiB are possible",
            )),
        }
    }
    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": MEMORY_MIN, "maximum": MEMORY_MAX },
            { "type": "string", "pattern": "^[0-9]+ *[MG]iB$" },
        ] })
    }
}

fn memory_text(scalar: Scalar<'_>) -> Result<u64, Wrong> {
    let text = scalar.text()?;
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| Wrong::kind())?;
    match unit.trim_start_matches(' ') {
        "MiB" => Ok(number),
        "GiB" => Ok(number.saturating_mul(1024)),
        other => Err(match other.trim().to_ascii_lowercase().chars().next() {
            Some('m') => Wrong::hint(format!("write `{number} MiB`")),
            Some('g') => Wrong::hint(format!("write `{number} GiB`")),
            None => Wrong::hint(format!("remove the quotes, or write `{number} MiB`")),
            _ => Wrong::kind(),
        }),
    }
}

/// A SHA-256 in hex.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sha256(pub(crate) String);

impl Parse for Sha256 {
    fn expected() -> String {
        "a SHA-256 of 64 hexadecimal digits".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(Wrong::hint(format!("this has {} characters; `sha256sum FILE` prints it", text.chars().count())))
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" })
    }
}

/// A word out of a few.
macro_rules! words {
    ($ty:ty, $( $word:literal => $value:expr ),+) => {
        impl Parse for $ty {
            fn expected() -> String {
                let words: &[&str] = &[$( concat!("`", $word, "`") ),+];
                words.join(" or ")
            }
            fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
                match scalar.text()? {
                    $( $word => Ok($value), )+
                    other => Err(Wrong { message: None, hint: did_you_mean(other, [$( $word ),+]) }),
                }
            }
            fn schema() -> Value {
                json!({ "enum": [$( $word ),+] })
            }
        }
    };
}

words!(Egress, "none" => Egress::None, "routed" => Egress::Routed, "masquerade" => Egress::Masquerade);
words!(GuestKind, "vm" => GuestKind::Vm, "namespace" => GuestKind::Namespace);
words!(RuleAction, "accept" => RuleAction::Accept, "drop" => RuleAction::Drop, "reject" => RuleAction::Reject);
words!(ExpectedVerdict, "reachable" => ExpectedVerdict::Reachable, "blocked" => ExpectedVerdict::Blocked);

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family(pub(crate) u8);

impl Parse for Family {
    fn expected() -> String {
        "`4` or `6`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        match scalar.integer() {
            Ok(4) => Ok(Self(4)),
            Ok(6) => Ok(Self(6)),
            Err(_) if scalar.text.to_ascii_lowercase().ends_with('4') => {
                Err(Wrong::hint("write `family: 4`"))
            }
            Err(_) if scalar.text.to_ascii_lowercase().ends_with('6') => {
                Err(Wrong::hint("write `family: 6`"))
            }
            _ => Err(Wrong::kind()),
        }
    }
    fn schema() -> Value {
        json!({ "enum": [4, 6] })
    }
}
