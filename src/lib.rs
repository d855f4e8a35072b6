//! netloom builds network labs on libvirt and the Linux kernel from one file, proves by probes that they behave as
//! the file says, and removes them without trace. See `ARCHITECTURE.md` for the map.

pub mod error;
pub mod firewall;
pub mod guest;
pub mod host;
pub mod mode;
pub mod resource;
pub mod topology;

pub use error::{Error, Result};
