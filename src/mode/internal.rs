//! `internal`.

use super::{Egress, Mode, Wiring};

/// Guests reach each other alone; the host has no leg.
pub(super) struct Internal;

impl Mode for Internal {
    fn id(&self) -> &'static str {
        "internal"
    }
    fn promise(&self) -> &'static str {
        "Guests reach each other alone; the host has no leg."
    }
    fn wiring(&self) -> Wiring {
        Wiring {
            host_leg: false,
            uplink: false,
            egress: Egress::None,
            ingress: false,
            dhcp: false,
            dns: false,
        }
    }
}
