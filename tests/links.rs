//! Links that only some modes need, each made, looked at, changed, put right after somebody else changed it, and removed
//! through the real adapters; judged by `ip`, `bridge`, ping and what travels.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "links/ahead.rs"]
mod ahead;
#[path = "links/apart.rs"]
mod apart;
mod bench;
#[path = "links/birth.rs"]
mod birth;
#[path = "links/macvlan.rs"]
mod macvlan;
#[path = "links/macvtap.rs"]
mod macvtap;
#[path = "links/ports.rs"]
mod ports;
#[path = "links/rig.rs"]
mod rig;
#[path = "links/ruleset.rs"]
mod ruleset;
#[path = "links/uplink.rs"]
mod uplink;
#[path = "links/vlan.rs"]
mod vlan;
#[path = "links/vxlan.rs"]
mod vxlan;
