//! Firewall flavours: each compiles a firewall guest's policy to what the guest is told. A flavour is one file here and
//! one line in [`ALL`]. Nothing in this module does I/O.

mod dnsmasq;
mod linux;
mod text;

use crate::error::{Error, Result};
use crate::topology::{Firewall, Guest, Topology};

/// Name of the nftables table (family `inet`) in a firewall guest.
pub const TABLE: &str = "netloom";

/// What a firewall guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// A whole script for `nft -f`: one transaction that replaces table `inet` [`TABLE`] and touches no other.
    pub ruleset: String,
    /// A whole dnsmasq configuration for the zones it serves, without paths of files; `None` when it serves none.
    pub dnsmasq: Option<String>,
}

/// A kind of firewall.
pub trait Flavour: Sync {
    /// How files name it.
    fn id(&self) -> &'static str;
    /// One line for people.
    fn promise(&self) -> &'static str;
    /// Compiles the policy.
    ///
    /// # Errors
    /// Exit 2 when the policy asks for what this flavour cannot do.
    fn compile(&self, topology: &Topology, guest: &Guest, firewall: &Firewall) -> Result<Compiled>;
}

/// Every flavour.
pub const ALL: &[&dyn Flavour] = &[&linux::Linux];

/// The flavour with this id.
#[must_use]
pub fn by_id(id: &str) -> Option<&'static dyn Flavour> {
    ALL.iter().copied().find(|flavour| flavour.id() == id)
}

/// Compiles a firewall guest's policy with its flavour. Only for guests that have one: a plain router gets no ruleset.
///
/// # Errors
/// Exit 2 when the flavour is unknown or cannot do what the policy asks for, or the guest is no firewall.
pub fn compile(topology: &Topology, guest: &Guest) -> Result<Compiled> {
    let firewall = guest
        .firewall
        .as_ref()
        .ok_or_else(|| Error::input(format!("guest `{}` is no firewall", guest.name)))?;
    let flavour = by_id(&firewall.flavour).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|flavour| flavour.id()).collect();
        Error::input(format!("firewall `{}` has the unknown flavour `{}`", guest.name, firewall.flavour))
            .hint(format!("known flavours: {}", known.join(", ")))
    })?;
    flavour.compile(topology, guest, firewall)
}
