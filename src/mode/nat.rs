//! `nat`.

use super::{Egress, Mode, Wiring};

/// Guests reach the host, each other and, behind the host's address, everything outside; nothing outside reaches them.
pub(super) struct Nat;

impl Mode for Nat {
    fn id(&self) -> &'static str {
        "nat"
    }
    fn promise(&self) -> &'static str {
        "Guests reach the host, each other and, behind the host's address, everything outside; nothing outside reaches them."
    }
    fn wiring(&self) -> Wiring {
        Wiring {
            host_leg: true,
            uplink: false,
            egress: Egress::Masquerade,
            ingress: false,
            dhcp: true,
            dns: true,
        }
    }
}
