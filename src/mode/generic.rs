//! The generic modes, named after what they do.

use super::wiring::{BRIDGED, ENGINE, HOST_ONLY, INTERNAL, MACVLAN, NAT, ROUTED};
use super::{DEFAULTS, Defaults, MODE, Mode, Wiring};

const fn mode(id: &'static str, promise: &'static str, wiring: Wiring) -> Mode {
    Mode { id, promise, wiring, ..MODE }
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
    mode(
        "macvtap",
        "Guests are on the uplink's own network, each by a macvlan of its own; the host is the one station they do not reach.",
        MACVLAN,
    ),
    Mode {
        defaults: Defaults { subnet: Some("10.0.2.0/24"), gateway: 2, dns: Some(3), ..DEFAULTS },
        ..mode(
            "user",
            "Each guest by itself reaches everything outside through a NAT engine; it is reached through port forwards alone.",
            Wiring { isolated: true, ..ENGINE },
        )
    },
];
