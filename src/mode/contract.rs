//! What a construct promises to let through, as its vendor documents it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who asks whom, without anything more being configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Guest to host.
    G2h,
    /// Host to guest.
    H2g,
    /// Guest to guest on the same network.
    G2g,
    /// Guest to the LAN and beyond.
    G2l,
    /// The LAN and beyond to guest.
    L2g,
}

impl Direction {
    /// All five, in the order of the matrix.
    pub const ALL: [Direction; 5] =
        [Direction::G2h, Direction::H2g, Direction::G2g, Direction::G2l, Direction::L2g];

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Direction::G2h => "guest → host",
            Direction::H2g => "host → guest",
            Direction::G2g => "guest ↔ guest",
            Direction::G2l => "guest → LAN",
            Direction::L2g => "LAN → guest",
        }
    }
}

/// What is promised of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Traffic passes.
    Pass,
    /// Traffic does not pass.
    Block,
    /// Only through a configured port forward (or floating IP).
    Forward,
    /// It depends on a choice: see the [`State`]s.
    Depends,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Promise::Pass => "pass",
            Promise::Block => "block",
            Promise::Forward => "forward",
            Promise::Depends => "depends",
        })
    }
}

/// Who hands out addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dhcp {
    /// The construct itself.
    Server,
    /// The LAN it joins.
    Lan,
    /// Nobody.
    None,
    /// The construct, where the file asks for it.
    Optional,
}

impl fmt::Display for Dhcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Dhcp::Server => "server",
            Dhcp::Lan => "lan",
            Dhcp::None => "none",
            Dhcp::Optional => "optional",
        })
    }
}

/// A choice on which promises depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct State {
    /// In words, such as `with SNAT`.
    pub label: &'static str,
    /// The keys of the network that make it, as in a file, one a line: `egress: masquerade`. Empty for the default;
    /// the state that examples show comes first.
    pub keys: &'static str,
    /// The five directions in this state, in the order of [`Direction::ALL`].
    pub cells: [Promise; 5],
    /// Whether the switch outside sends frames back to the port they came from.
    pub hairpin: bool,
    /// The keys that each guest's NIC needs in this state: `vlan: lan`. Empty for none.
    pub nic: &'static str,
}

/// What a construct promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Contract {
    /// The five directions, in the order of [`Direction::ALL`].
    pub cells: [Promise; 5],
    /// Directions nobody documents: netloom's reading.
    pub inferred: &'static [Direction],
    /// Who hands out addresses.
    pub dhcp: Dhcp,
    /// Whether who hands out addresses is netloom's reading, too.
    pub inferred_dhcp: bool,
    /// Whether the host holds an address that guests find on the network.
    pub host_address: bool,
    /// Both sides of what depends; empty when nothing does.
    pub states: &'static [State],
    /// What else there is to say.
    pub note: &'static str,
    /// Where the promise is documented.
    pub source: &'static str,
}

impl Contract {
    /// Whether the host holds an address on the network in this state. Where guests reach the host in this state
    /// although the contract alone does not promise it, that is because it has one.
    #[must_use]
    pub fn host_address_in(&self, state: &State) -> bool {
        self.host_address || (self.cells[0] != Promise::Pass && state.cells[0] == Promise::Pass)
    }
}

/// Nothing passes and nobody hands out addresses: what a construct's entry says differs from this.
pub(super) const CONTRACT: Contract = Contract {
    cells: [Promise::Block; 5],
    inferred: &[],
    dhcp: Dhcp::None,
    inferred_dhcp: false,
    host_address: false,
    states: &[],
    note: "",
    source: "",
};
