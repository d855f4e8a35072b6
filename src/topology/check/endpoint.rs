//! `web`, `web:80`, `10.0.0.1:80`, `[fd00::1]:80`.

use std::net::IpAddr;

use crate::diagnostic::Sink;
use crate::spec::decode::At;
use crate::spec::tree::shortened;

/// Splits a port off; notes a port that is none.
pub(super) fn split<'t>(text: &'t At<String>, sink: &mut Sink) -> Option<(&'t str, Option<u16>)> {
    let whole = text.value.as_str();
    if whole.parse::<IpAddr>().is_ok() {
        return Some((whole, None));
    }
    let (host, port) = if let Some(rest) = whole.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            sink.hinted(
                text.span,
                "`[` is not closed",
                "write an IPv6 address and its port as `\"[fd00::1]:80\"`",
            );
            return None;
        };
        if after.is_empty() { (host, None) } else { (host, Some(after.strip_prefix(':').unwrap_or(after))) }
    } else {
        match whole.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (whole, None),
        }
    };
    let Some(port) = port else { return Some((host, None)) };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 => Some((host, Some(number))),
        _ => {
            let message = format!("`{}` is not a port", shortened(port));
            sink.hinted(text.span, message, "a port is a number from 1 to 65535, as in `web:80`");
            None
        }
    }
}
