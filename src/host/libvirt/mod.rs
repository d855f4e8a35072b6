//! libvirt, in a process of its own.
//!
//! The library runs in a worker (the program `netloom-libvirt`), for five reasons: its embedded driver needs an event loop
//! that is registered before anything else happens, it may block for long or take the whole process down, it must be
//! single-threaded while it enters a user namespace, a worker that ends gives the embedded driver's lock back, and a
//! program that links libvirt takes 10 ms to start, which nothing but VMs should cost. The client and the worker speak
//! lines of JSON (`protocol`).

mod accel;
mod answer;
mod choose;
mod client;
mod driver;
mod embed;
mod lost;
mod nested;
mod process;
mod protocol;
mod stranded;
mod transport;
mod worker;
pub mod xml;

pub use accel::{Acceleration, Accelerator, accelerator, accelerator_for};
pub use choose::{Connection, choose, system_daemon_listens};
pub use client::Client;
pub(crate) use client::{WORKER, has_worker};
pub(crate) use embed::copy_capabilities;
pub(crate) use stranded::stranded;
pub use worker::worker_main;
pub use xml::{DomainSpec, Kernel, NicSpec, domain_xml};
