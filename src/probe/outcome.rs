//! What one probe met.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::topology::Service;

/// One question to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) address: IpAddr,
    pub(super) service: Service,
    /// Whether an accepted TCP connection is only an answer when the server's line comes: something in between may
    /// accept connections on behalf of a server that it cannot reach.
    pub(super) line: bool,
}

/// How long to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// In all.
    pub(super) whole: Duration,
    /// Whether to ask again after a refusal: the server may be starting.
    pub(super) insist: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer, with the line where one came.
    Answered { line: Option<String>, rtt: Option<Duration> },
    /// None.
    Silent(Silence),
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing came back.
    TimedOut,
    /// A TCP reset, or no UDP server at the port.
    Refused,
    /// An ICMP error, by whom as far as known.
    Rejected { by: Option<IpAddr>, why: &'static str },
    /// The source has no route there.
    NoRoute,
    /// The TCP connection was accepted, but the server's line never came.
    Mute,
    /// The probe itself could not be made; proves nothing.
    Unable(String),
    /// The guest has no program to probe with; the same.
    Lacking(String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out"),
            Self::Refused => f.write_str("refused"),
            Self::Rejected { by: Some(by), why } => write!(f, "rejected by {by}: {why}"),
            Self::Rejected { by: None, why } => write!(f, "rejected: {why}"),
            Self::NoRoute => f.write_str("no route"),
            Self::Mute => f.write_str("connection accepted, but the server's answer never came"),
            Self::Unable(why) => f.write_str(why),
            Self::Lacking(what) => write!(f, "the guest has no {what} to probe with"),
        }
    }
}

impl Silence {
    /// Whether it says nothing about the network.
    pub(super) fn proves_nothing(&self) -> bool {
        matches!(self, Self::Unable(_) | Self::Lacking(_))
    }
}

impl Outcome {
    pub(super) fn answered(&self) -> bool {
        matches!(self, Self::Answered { .. })
    }
}

/// Words for ICMP's and ICMPv6's unreachable codes (RFC 792, RFC 1812, RFC 4443).
pub(super) fn unreachable(v4: bool, kind: u8, code: u8) -> &'static str {
    match (v4, kind, code) {
        (true, 3, 0 | 6 | 11) | (false, 1, 0) => "no route to the network",
        (true, 3, 1 | 7 | 12) | (false, 1, 3) => "host unreachable",
        (true, 3, 3) | (false, 1, 4) => "port unreachable",
        (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => "administratively prohibited",
        (true, 11, _) | (false, 3, _) => "too many hops",
        (false, 2, _) | (true, 3, 4) => "packet too big",
        _ => "unreachable",
    }
}
