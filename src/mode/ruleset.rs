//! Networks to the host's nftables table.

use ipnetwork::IpNetwork;

use super::Wiring;

/// A network as the host's ruleset sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    /// Name in the file, for comments.
    pub name: String,
    /// Kernel name of the link that IP traffic of the network passes on the host: the bridge or a VLAN link on it.
    pub bridge: String,
    /// What its mode expands to.
    pub wiring: Wiring,
    /// Its subnets.
    pub subnets: Vec<IpNetwork>,
}

/// The script for `nft -f` that replaces the lab's table on the host in one transaction; `None` when no network needs
/// a rule (delete the table then).
#[must_use]
pub fn host_ruleset(lab: &str, networks: &[HostNetwork]) -> Option<String> {
    let _ = (lab, networks);
    None
}
