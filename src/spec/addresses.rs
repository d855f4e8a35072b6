//! Addresses, subnets, ranges and MAC addresses: how each is written and what is wrong with it otherwise.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::decode::{Parse, Scalar, Wrong};
use super::tree::shortened;
use crate::topology::{AddressRange, Mac};

impl Parse for IpAddr {
    fn expected() -> String {
        "an address such as `10.0.0.1` or `fd00::1`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        Err(match text.split_once('/') {
            Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                Wrong::hint(format!("without the prefix length: `{address}`"))
            }
            _ => Wrong::kind(),
        })
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+$" })
    }
}

const CIDR_PATTERN: &str = "^[0-9A-Fa-f:.]+/[0-9]{1,3}$";

/// Splits and reads `address/prefix`; unlike `IpNetwork`'s own reading it wants the prefix.
fn cidr(scalar: Scalar<'_>, missing: &str) -> Result<IpNetwork, Wrong> {
    let text = scalar.text()?;
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => Wrong::said(
                format!("`{}` has no prefix length", shortened(text)),
                format!("add {missing}, such as `{text}/24`"),
            ),
            Ok(IpAddr::V6(_)) => Wrong::said(
                format!("`{}` has no prefix length", shortened(text)),
                format!("add {missing}, such as `{text}/64`"),
            ),
            Err(_) => Wrong::kind(),
        });
    };
    let address: IpAddr = address.parse().map_err(|_| Wrong::kind())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let wrong = || {
        Wrong::said(
            format!("`/{}` is not a prefix length of `{address}`", shortened(prefix)),
            format!("a prefix length is a number from 0 to {most}"),
        )
    };
    let prefix: u8 = prefix.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    IpNetwork::new(address, prefix).map_err(|_| wrong())
}

/// A subnet: address and prefix length, all host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(pub(crate) IpNetwork);

impl Parse for Subnet {
    fn expected() -> String {
        "a subnet such as `10.0.0.0/24` or `fd00:1::/64`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let net = cidr(scalar, "the subnet's prefix length")?;
        if net.ip() != net.network() {
            return Err(Wrong::said(
                format!("`{net}` is an address in a subnet, not a subnet"),
                format!("the subnet is `{}/{}`", net.network(), net.prefix()),
            ));
        }
        Ok(Self(net))
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": CIDR_PATTERN })
    }
}

/// An address with its subnet's prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface(pub(crate) IpNetwork);

impl Parse for Interface {
    fn expected() -> String {
        "an address with prefix length such as `10.0.0.10/24`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        match scalar.text {
            "dhcp" | "auto" | "dynamic" => {
                return Err(Wrong::hint(
                    "leave the key out: without an address a NIC asks the network for one",
                ));
            }
            _ => {}
        }
        cidr(scalar, "the prefix length of its subnet").map(Self)
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": CIDR_PATTERN })
    }
}

/// Where a route leads: a subnet, or `default` for both families' everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination(pub(crate) Option<IpNetwork>);

impl Parse for Destination {
    fn expected() -> String {
        "a subnet such as `10.0.0.0/24`, or `default`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        if scalar.text == "default" {
            return Ok(Self(None));
        }
        Subnet::parse(scalar).map(|subnet| Self(Some(subnet.0)))
    }
    fn schema() -> Value {
        json!({ "anyOf": [{ "const": "default" }, Subnet::schema()] })
    }
}

impl Parse for AddressRange {
    fn expected() -> String {
        "a range of IPv4 addresses such as `10.0.0.100-10.0.0.199`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        let (first, last) = text.split_once('-').ok_or_else(Wrong::kind)?;
        let address = |part: &str| part.trim_matches(' ').parse::<IpAddr>().map_err(|_| Wrong::kind());
        let (first, last) = (address(first)?, address(last)?);
        if first.is_ipv6() || last.is_ipv6() {
            return Err(Wrong::said(
                "a DHCP range is IPv4",
                "IPv6 addresses come from router advertisements: give the network an IPv6 subnet with prefix length 64",
            ));
        }
        if first > last {
            return Err(Wrong::said(
                format!("the range `{}` ends before it begins", shortened(text)),
                format!("write `{last}-{first}`"),
            ));
        }
        Ok(Self { first, last })
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9.]+ *- *[0-9.]+$" })
    }
}

impl Parse for Mac {
    fn expected() -> String {
        "a MAC address such as `52:54:00:12:34:56`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text()?;
        let Ok(mac) = text.parse::<Mac>() else {
            let dashed = text.replace('-', ":");
            let hint = dashed.parse::<Mac>().map(|mac| Wrong::hint(format!("write `{mac}`")));
            return Err(hint.unwrap_or_else(|_| Wrong::kind()));
        };
        if mac.0[0] & 1 == 1 {
            let mut single = mac;
            single.0[0] &= 0xfe;
            return Err(Wrong::said(
                format!("`{text}` is a multicast MAC address"),
                format!("the first byte of a NIC's address is even, as in `{single}`"),
            ));
        }
        if mac.0 == [0; 6] {
            return Err(Wrong::said(
                "a NIC's MAC address cannot be all zero",
                "leave `mac` out: a stable one is chosen",
            ));
        }
        Ok(mac)
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$" })
    }
}
