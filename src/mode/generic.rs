//! The generic modes, named after what they do.

use super::wiring::{BRIDGED, HOST_ONLY, INTERNAL, NAT, ROUTED};
use super::{DEFAULTS, Mode, Wiring};

const fn mode(id: &'static str, promise: &'static str, wiring: Wiring) -> Mode {
    Mode { id, alias: "", promise, wiring, defaults: DEFAULTS, contract: None }
}

pub(super) const MODES: &[Mode] = &[
    mode(
        "nat",
        "Guests reach the host, each other and, behind the host's address, everything outside; nothing outside reaches them.",
        NAT,
    ),
    mode(
        "routed",
        "Guests reach the host, each other and the outside with their own addresses, and are reached there.",
        ROUTED,
    ),
    mode(
        "host-only",
        "Guests and host reach each other; nothing else is reached and nothing else reaches them.",
        HOST_ONLY,
    ),
    mode("internal", "Guests reach each other alone; the host has no leg.", INTERNAL),
    mode("bridged", "Guests are on the uplink's own network, as its other hosts are.", BRIDGED),
];
