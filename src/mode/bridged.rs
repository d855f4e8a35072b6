//! `bridged`.

use super::{Egress, Mode, Wiring};

/// Guests are on the uplink's own network, as its other hosts are.
pub(super) struct Bridged;

impl Mode for Bridged {
    fn id(&self) -> &'static str {
        "bridged"
    }
    fn promise(&self) -> &'static str {
        "Guests are on the uplink's own network, as its other hosts are."
    }
    fn wiring(&self) -> Wiring {
        Wiring {
            host_leg: false,
            uplink: true,
            egress: Egress::None,
            ingress: false,
            dhcp: false,
            dns: false,
        }
    }
}
