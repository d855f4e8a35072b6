//! The hypervisor as the rest of netloom sees it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A domain that carries netloom's mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDomain {
    /// libvirt's name.
    pub name: String,
    /// Lab in the mark.
    pub lab: String,
    /// Guest in the mark.
    pub guest: String,
    /// Digest of the desired domain in the mark.
    pub digest: String,
    /// Whether it runs.
    pub running: bool,
    /// Path of the console's pty, while it runs.
    pub console: Option<String>,
    /// Process id of the emulator where the connection tells, for figures.
    pub pid: Option<u32>,
}

/// What a connection can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorInfo {
    /// Canonical URI of the connection.
    pub uri: String,
    /// `11.3.0`.
    pub libvirt_version: String,
    /// Path of the emulator.
    pub emulator: String,
    /// Names of all domains on this connection, ours or not: to refuse a name that is taken.
    pub domains: Vec<String>,
}

/// Domains on one libvirt connection.
#[async_trait]
pub trait Domains: Send + Sync {
    /// Whether it can still be asked anything.
    fn is_alive(&self) -> bool {
        true
    }
    /// What the connection is and can do.
    async fn info(&self) -> Result<HypervisorInfo>;
    /// Every domain with netloom's mark, of any lab.
    async fn list(&self) -> Result<Vec<ObservedDomain>>;
    /// Defines the domain and starts it; on failure neither remains.
    async fn create(&self, xml: &str) -> Result<()>;
    /// Starts a defined domain.
    async fn start(&self, name: &str) -> Result<()>;
    /// Stops the domain at once and undefines it; fine when it is already gone.
    async fn remove(&self, name: &str) -> Result<()>;
    /// Sends one QEMU guest agent command (JSON) and returns the answer (JSON). An agent that does not answer within
    /// `timeout` is an error.
    async fn agent(&self, name: &str, command: &str, timeout: Duration) -> Result<String>;
    /// Lets go of the connection, and waits until what it held on the host is free again: an embedded driver's
    /// directory may be removed after that.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
