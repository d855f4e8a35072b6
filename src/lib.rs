//! netloom builds network labs on libvirt and the Linux kernel from one file, proves by probes that they behave as
//! the file says, and removes them without trace. See `ARCHITECTURE.md` for the map.

pub mod apply;
pub mod cli;
pub mod compare;
pub mod dhcp;
pub mod diagnostic;
pub mod doctor;
pub mod error;
pub mod firewall;
#[doc(hidden)]
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod image;
pub mod inventory;
pub mod lease;
pub mod mode;
pub mod plan;
pub mod probe;
pub mod report;
pub mod resource;
pub mod sandbox;
pub mod serve;
pub mod spec;
pub mod topology;

pub use error::{Error, Result};
