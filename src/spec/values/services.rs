//! Services and ports.

use serde_json::{Value, json};

use crate::spec::decode::{Parse, Scalar, Wrong};
use crate::spec::suggest::did_you_mean;
use crate::spec::tree::shortened;
use crate::topology::{Protocol, Service};

impl Parse for Service {
    fn expected() -> String {
        "a service such as `tcp/80`, `udp/53` or `icmp`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        if let Ok(port) = scalar.integer() {
            return Err(Wrong::hint(format!("write `tcp/{port}` or `udp/{port}`")));
        }
        let text = scalar.text()?;
        if text == "icmp" {
            return Ok(Self { protocol: Protocol::Icmp, port: 0 });
        }
        let Some((protocol, port)) = text.split_once('/') else {
            return Err(well_known(text).map_or_else(Wrong::kind, |service| {
                Wrong::hint(format!("services go by protocol and port: `{service}`"))
            }));
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => return Err(Wrong::hint("`icmp` has no port")),
            _ if port == "tcp" || port == "udp" => {
                return Err(Wrong::hint(format!("write `{port}/{protocol}`")));
            }
            other => {
                let hint = did_you_mean(other, ["tcp", "udp"]);
                return Err(Wrong { message: None, hint });
            }
        };
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if port > 0 && digits => Ok(Self { protocol, port }),
            _ => Err(Wrong::said(
                format!("`{}` is not a port", shortened(port)),
                "a port is a number from 1 to 65535",
            )),
        }
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(icmp|(tcp|udp)/[0-9]{1,5})$" })
    }
}

/// What people write for services by name.
fn well_known(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "http" => "tcp/80",
        "https" => "tcp/443",
        "ssh" => "tcp/22",
        "dns" => "udp/53",
        "ping" | "icmpv6" | "icmp6" => "icmp",
        _ => return None,
    })
}

/// One port or a range of ports of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) protocol: Protocol,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Parse for Ports {
    fn expected() -> String {
        "a port such as `tcp/8080`, or ports such as `udp/5000-5010`".to_owned()
    }
    fn parse(scalar: Scalar<'_>) -> Result<Self, Wrong> {
        let text = scalar.text().unwrap_or_default();
        let Some((head, last)) = text.rsplit_once('-').filter(|(head, _)| head.contains('/')) else {
            let service = Service::parse(scalar)?;
            if service.protocol == Protocol::Icmp {
                return Err(Wrong::hint("`icmp` has no port that could be forwarded"));
            }
            return Ok(Self { protocol: service.protocol, first: service.port, last: service.port });
        };
        let first: Service = head.parse().map_err(|_| Wrong::kind())?;
        let last: u16 = last.parse().map_err(|_| Wrong::kind())?;
        if last < first.port {
            return Err(Wrong::hint(format!("the range ends before it begins: `{last}-{}`?", first.port)));
        }
        Ok(Self { protocol: first.protocol, first: first.port, last })
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?$" })
    }
}
