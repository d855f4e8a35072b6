//! Flavour `linux`: the kernel's own packet filter (nftables) and dnsmasq.

use super::{Compiled, Flavour, dnsmasq};
use crate::error::Result;
use crate::topology::{Firewall, Guest, Topology};

/// nftables and dnsmasq in a Linux guest.
pub(super) struct Linux;

impl Flavour for Linux {
    fn id(&self) -> &'static str {
        "linux"
    }
    fn promise(&self) -> &'static str {
        "The Linux kernel's own packet filter (nftables) with dnsmasq for DHCP and DNS."
    }
    fn compile(&self, topology: &Topology, guest: &Guest, firewall: &Firewall) -> Result<Compiled> {
        Ok(Compiled { ruleset: String::new(), dnsmasq: dnsmasq::config(topology, guest, firewall) })
    }
}
