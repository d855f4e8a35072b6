//! Nothing left, nothing lost, nothing touched that is not ours: netloom is failed, killed, crowded and damaged, and
//! tools that know nothing of it say what is there afterwards. `make reliability` does all of it in full length.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "reliability/closed.rs"]
mod closed;
#[path = "reliability/corpus.rs"]
mod corpus;
#[allow(dead_code)]
#[path = "reliability/extent.rs"]
mod extent;
#[allow(dead_code)]
#[path = "lab/host.rs"]
mod host;
#[allow(dead_code)]
#[path = "lab/rig.rs"]
mod rig;
