//! Nothing left, nothing lost, nothing touched that is not ours: netloom is failed, killed, crowded and damaged, and
//! tools that know nothing of it say what is there afterwards. `make reliability` does all of it in full length.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "reliability/closed.rs"]
mod closed;
#[path = "reliability/corpus.rs"]
mod corpus;
#[path = "reliability/daemon.rs"]
mod daemon;
#[path = "reliability/damage.rs"]
mod damage;
#[path = "reliability/damages.rs"]
mod damages;
#[path = "reliability/disk.rs"]
mod disk;
#[allow(dead_code)]
#[path = "reliability/extent.rs"]
mod extent;
#[path = "reliability/faults.rs"]
mod faults;
#[allow(dead_code)]
#[path = "lab/host.rs"]
mod host;
#[path = "reliability/kills.rs"]
mod kills;
#[path = "reliability/labs.rs"]
mod labs;
#[path = "reliability/machines.rs"]
mod machines;
#[path = "reliability/model.rs"]
mod model;
#[path = "reliability/neighbours.rs"]
mod neighbours;
#[allow(dead_code)]
#[path = "lab/rig.rs"]
mod rig;
#[path = "reliability/signals.rs"]
mod signals;
#[allow(dead_code)]
#[path = "reliability/spoil.rs"]
mod spoil;
#[path = "reliability/storm.rs"]
mod storm;
