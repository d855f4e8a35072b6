//! Harvester: networks of virtual machines.

use super::contract::CONTRACT;
use super::contract::Direction::{G2h, G2l};
use super::contract::Promise::{Block, Depends, Forward, Pass};
use super::example::HOST_IN_VLAN;
use super::wiring::{NAT, PORT_GROUP};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, Mode, State};

/// What a network on the cluster's uplink promises.
const UPLINKED: Contract = Contract {
    cells: [Depends, Depends, Pass, Pass, Pass],
    dhcp: Dhcp::Lan,
    source: "harvester-network",
    ..CONTRACT
};

/// On a VLAN: the host's address is in it, or is not.
const VLAN: Contract = Contract {
    states: &[
        State {
            label: "the host is not on the segment",
            keys: "tag: 10",
            cells: [Block, Block, Pass, Pass, Pass],
            hairpin: false,
            nic: "",
        },
        State {
            label: "the host is on the segment",
            keys: HOST_IN_VLAN,
            cells: [Pass; 5],
            hairpin: false,
            nic: "vlan: lan",
        },
    ],
    ..UPLINKED
};

/// Untagged: the host takes part, or does not.
const UNTAGGED: Contract = Contract {
    states: &[
        State {
            label: "the host is not on the segment",
            keys: "",
            cells: [Block, Block, Pass, Pass, Pass],
            hairpin: false,
            nic: "",
        },
        State {
            label: "the host is on the segment",
            keys: "host: true",
            cells: [Pass; 5],
            hairpin: false,
            nic: "",
        },
    ],
    ..UPLINKED
};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "harvester/vlan",
        promise: "Guests are on one VLAN of the LAN; the host is there where it holds an address on it.",
        wiring: PORT_GROUP,
        contract: Some(VLAN),
        linux: "`tag: 20` is the VLAN ID; without it frames are untagged. Where the host shall be on the segment, `vlans` makes it one of a VLAN-aware bridge, on which the host has a leg.",
        ..MODE
    },
    Mode {
        id: "harvester/untagged",
        promise: "Guests are on the LAN; the host is there where it holds an address on it.",
        wiring: PORT_GROUP,
        contract: Some(UNTAGGED),
        ..MODE
    },
    Mode {
        id: "harvester/management",
        promise: "Guests reach the host, each other and, behind the host's address, everything outside; port forwards lead in.",
        wiring: NAT,
        defaults: Defaults { mtu: 1450, ..DEFAULTS },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Pass, Forward],
            inferred: &[G2h, G2l],
            dhcp: Dhcp::Server,
            host_address: true,
            note: "MTU 1450.",
            source: "harvester-network",
            ..CONTRACT
        }),
        linux: "A bridge with NAT in place of the cluster's pod network; a port forward stands for a Kubernetes service.",
        ..MODE
    },
];
