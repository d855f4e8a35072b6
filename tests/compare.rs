//! `netloom compare` from the command line: published tables come out, nothing is left behind, and what is broken by
//! hand in a lab is noticed in the right cell.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "compare/against.rs"]
mod against;
#[path = "compare/breaks.rs"]
mod breaks;
#[path = "compare/machines.rs"]
mod machines;
#[allow(dead_code)]
#[path = "lab/rig.rs"]
mod rig;
#[path = "compare/speed.rs"]
mod speed;
#[path = "compare/vlans.rs"]
mod vlans;
#[path = "compare/whole.rs"]
mod whole;
