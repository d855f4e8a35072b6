//! The adapters: the only modules that talk to the kernel, libvirt, nftables and processes.

pub mod actuator;
pub mod agent;
mod boots;
pub mod console;
pub mod domains;
pub(crate) mod files;
pub mod lab;
pub mod labdir;
pub mod libvirt;
pub mod links;
pub mod listening;
pub mod netns;
pub mod nft;
pub(crate) mod resolvers;
pub mod run;
pub mod service;
pub(crate) mod sys;
pub mod sysctl;
pub(crate) mod workers;
