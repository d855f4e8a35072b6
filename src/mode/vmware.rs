//! VMware Workstation and Player: virtual networks and LAN segments.

use super::contract::CONTRACT;
use super::contract::Direction::G2g;
use super::contract::Promise::{Block, Forward, Pass};
use super::wiring::{BRIDGED, HOST_ONLY, INTERNAL, NAT};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, Mode};

/// The part of a subnet that VMware's DHCP server hands out.
const UPPER_HALF: Defaults = Defaults { range: Some((128, 254)), ..DEFAULTS };

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "vmware/bridged",
        alias: "vmnet0",
        promise: "Guests are on the LAN, as the host is.",
        wiring: BRIDGED,
        contract: Some(Contract {
            cells: [Pass; 5],
            dhcp: Dhcp::Lan,
            host_address: true,
            source: "VMware Player manual; Workstation Pro 17 docs",
            ..CONTRACT
        }),
        linux: "The uplink becomes a port of a bridge that takes over its addresses; VMware's driver taps the link instead.",
        ..MODE
    },
    Mode {
        id: "vmware/nat",
        alias: "vmnet8",
        promise: "Guests and host reach each other fully; behind the host's address guests reach everything, and port forwards lead in.",
        wiring: NAT,
        defaults: UPPER_HALF,
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Pass, Forward],
            inferred: &[G2g],
            dhcp: Dhcp::Server,
            host_address: true,
            note: "The host itself is on the virtual network, with access to every guest: what NAT in VirtualBox lacks.",
            source: "VMware Workstation NAT documentation",
            ..CONTRACT
        }),
        linux: "The host is gateway and resolver, at .1; in VMware the host's adapter has .1 and a NAT process is the gateway at .2. VMware picks a free subnet; here the file names it.",
        ..MODE
    },
    Mode {
        id: "vmware/host-only",
        alias: "vmnet1",
        promise: "Guests and host reach each other; nothing else is reached and nothing else reaches them.",
        wiring: HOST_ONLY,
        defaults: UPPER_HALF,
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Block, Block],
            dhcp: Dhcp::Server,
            host_address: true,
            source: "VMware Workstation docs",
            ..CONTRACT
        }),
        linux: "VMware picks a free subnet; here the file names it.",
        ..MODE
    },
    Mode {
        id: "vmware/lan-segment",
        promise: "Guests reach each other alone; the host has no leg and nobody hands out addresses.",
        wiring: INTERNAL,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Block, Block],
            source: "secondary: Workstation networking guides",
            ..CONTRACT
        }),
        ..MODE
    },
];
