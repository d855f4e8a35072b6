//! `host-only`.

use super::{Egress, Mode, Wiring};

/// Guests and host reach each other; nothing else is reached and nothing else reaches them.
pub(super) struct HostOnly;

impl Mode for HostOnly {
    fn id(&self) -> &'static str {
        "host-only"
    }
    fn promise(&self) -> &'static str {
        "Guests and host reach each other; nothing else is reached and nothing else reaches them."
    }
    fn wiring(&self) -> Wiring {
        Wiring { host_leg: true, uplink: false, egress: Egress::None, ingress: false, dhcp: true, dns: true }
    }
}
