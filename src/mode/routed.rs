//! `routed`.

use super::{Egress, Mode, Wiring};

/// Guests reach the host, each other and the outside with their own addresses, and are reached there.
pub(super) struct Routed;

impl Mode for Routed {
    fn id(&self) -> &'static str {
        "routed"
    }
    fn promise(&self) -> &'static str {
        "Guests reach the host, each other and the outside with their own addresses, and are reached there."
    }
    fn wiring(&self) -> Wiring {
        Wiring { host_leg: true, uplink: false, egress: Egress::Routed, ingress: true, dhcp: true, dns: true }
    }
}
