//! Ports of the host that lead elsewhere.

use std::fmt;
use std::net::IpAddr;

use crate::topology::{Forward, Protocol};

/// A port of the host, or a range of them, that a lab forwards to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether it is about IPv6.
    pub six: bool,
    /// The one address that it is about; `None` for every address of the host.
    pub address: Option<IpAddr>,
    /// First and last port.
    pub ports: (u16, u16),
}

impl HostPort {
    /// What a forward takes.
    #[must_use]
    pub fn of(forward: &Forward) -> Self {
        let Forward { protocol, ports, address, target, .. } = forward;
        Self { protocol: *protocol, six: target.is_ipv6(), address: *address, ports: *ports }
    }

    /// Whether a packet can be for both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.protocol, self.six) == (other.protocol, other.six)
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
            && self.ports.0 <= other.ports.1
            && other.ports.0 <= self.ports.1
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == Protocol::Udp { "udp" } else { "tcp" };
        match self.ports {
            (first, last) if first == last => write!(f, "{protocol}/{first}")?,
            (first, last) => write!(f, "{protocol}/{first}-{last}")?,
        }
        match self.address {
            Some(address) => write!(f, " on {address}"),
            None if self.six => f.write_str(" on every IPv6 address"),
            None => f.write_str(" on every IPv4 address"),
        }
    }
}
