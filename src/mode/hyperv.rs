//! Hyper-V: virtual switches.

use super::contract::CONTRACT;
use super::contract::Promise::{Block, Forward, Pass};
use super::wiring::{BRIDGED, HOST_ONLY, INTERNAL, NAT};
use super::{Contract, Dhcp, MODE, Mode, Wiring};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "hyper-v/external",
        promise: "Guests are on the LAN, as the host is.",
        wiring: BRIDGED,
        contract: Some(Contract {
            cells: [Pass; 5],
            dhcp: Dhcp::Lan,
            host_address: true,
            note: "As long as the management OS shares the adapter; else guests and host do not reach each other.",
            source: "Plan Hyper-V networking",
            ..CONTRACT
        }),
        linux: "`host: false` is the switch whose adapter the host does not share.",
        ..MODE
    },
    Mode {
        id: "hyper-v/internal",
        promise: "Guests and host reach each other; nobody hands out addresses.",
        wiring: Wiring { dhcp: false, dns: false, ..HOST_ONLY },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Block, Block],
            inferred_dhcp: true,
            host_address: true,
            source: "Plan Hyper-V networking",
            ..CONTRACT
        }),
        linux: "The host gets an address at once; on Windows somebody gives the adapter one.",
        ..MODE
    },
    Mode {
        id: "hyper-v/private",
        promise: "Guests reach each other alone; the host has no leg.",
        wiring: INTERNAL,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Block, Block],
            source: "Plan Hyper-V networking",
            ..CONTRACT
        }),
        ..MODE
    },
    Mode {
        id: "hyper-v/default-switch",
        promise: "Guests reach the host, each other and, behind the host's address, everything outside; nothing outside reaches them.",
        wiring: Wiring { forwards: false, ..NAT },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Pass, Block],
            dhcp: Dhcp::Server,
            host_address: true,
            source: "Hyper-V default switch documentation",
            ..CONTRACT
        }),
        linux: "The subnet is the file's and stays; that of the default switch may be another one after each start of the host.",
        ..MODE
    },
    Mode {
        id: "hyper-v/nat",
        promise: "Guests and host reach each other; behind the host's address guests reach everything, and static mappings lead in. Nobody hands out addresses.",
        wiring: Wiring { dhcp: false, dns: false, ..NAT },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Pass, Forward],
            host_address: true,
            source: "Set up a NAT network (WinNAT)",
            ..CONTRACT
        }),
        linux: "A host may have as many such networks as it likes; WinNAT allows one.",
        ..MODE
    },
];
