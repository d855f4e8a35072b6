//! The whole program, from the command line: labs go up, are measured, changed, broken by hand, mended, and go down
//! without a trace. Each test has its own state directory; whatever touches networks is in a sandbox, or in namespaces
//! that play the host.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "lab/agentless.rs"]
mod agentless;
#[path = "lab/apart.rs"]
mod apart;
#[path = "lab/change.rs"]
mod change;
#[path = "image/cloud.rs"]
mod cloud;
#[path = "lab/drift.rs"]
mod drift;
#[path = "lab/gateways.rs"]
mod gateways;
#[path = "lab/host.rs"]
mod host;
#[path = "lab/many.rs"]
mod many;
#[path = "lab/refusals.rs"]
mod refusals;
#[path = "lab/rig.rs"]
mod rig;
#[path = "lab/shared.rs"]
mod shared;
#[path = "lab/teardown.rs"]
mod teardown;
#[path = "lab/topologies.rs"]
mod topologies;
#[path = "lab/vms.rs"]
mod vms;
