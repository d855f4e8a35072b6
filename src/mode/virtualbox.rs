//! VirtualBox: what a virtual machine's adapter can be attached to.

use super::contract::CONTRACT;
use super::contract::Promise::{Block, Forward, Pass};
use super::wiring::{BRIDGED, ENGINE, HOST_ONLY, INTERNAL};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, Mode, Wiring};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "virtualbox/nat",
        promise: "Each guest alone behind a NAT engine: it reaches everything, and is reached through port forwards only.",
        wiring: Wiring { isolated: true, loopback: true, ..ENGINE },
        defaults: Defaults {
            subnet: Some("10.0.2.0/24"),
            gateway: 2,
            dns: Some(3),
            range: Some((15, 31)),
            ..DEFAULTS
        },
        contract: Some(Contract {
            cells: [Pass, Forward, Block, Pass, Forward],
            dhcp: Dhcp::Server,
            note: "Every adapter has an engine of its own; that of adapter n has 10.0.(n+1).0/24. Through the gateway's address guests find what listens on the host's loopback.",
            source: "VirtualBox manual ch. 6, table 'Overview of networking modes' and ch. 9 NAT fine tuning",
            ..CONTRACT
        }),
        linux: "Guests share one engine and one subnet, with ports isolated from each other, so each has another address; in VirtualBox every guest is 10.0.2.15. A second network of this mode needs a subnet of its own.",
        ..MODE
    },
    Mode {
        id: "virtualbox/nat-network",
        promise: "Guests together behind one NAT engine: they reach each other and everything, and are reached through port forwards only.",
        wiring: ENGINE,
        defaults: Defaults { subnet: Some("10.0.2.0/24"), range: Some((4, 254)), ..DEFAULTS },
        contract: Some(Contract {
            cells: [Pass, Forward, Pass, Pass, Forward],
            dhcp: Dhcp::Optional,
            source: "VirtualBox manual ch. 6 (NATservice row)",
            ..CONTRACT
        }),
        linux: "The engine hands out addresses unless the file says `dhcp: false`. It does not lead to the host's loopback; VirtualBox can be told to.",
        ..MODE
    },
    Mode {
        id: "virtualbox/host-only",
        promise: "Guests and host reach each other; nothing else is reached and nothing else reaches them.",
        wiring: HOST_ONLY,
        defaults: Defaults { subnet: Some("192.168.56.0/24"), range: Some((101, 254)), ..DEFAULTS },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Block, Block],
            dhcp: Dhcp::Server,
            host_address: true,
            source: "VirtualBox manual ch. 6",
            ..CONTRACT
        }),
        linux: "The host's address answers DNS too; VirtualBox's does not.",
        ..MODE
    },
    Mode {
        id: "virtualbox/internal",
        promise: "Guests reach each other alone; the host has no leg.",
        wiring: INTERNAL,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Block, Block],
            dhcp: Dhcp::Optional,
            source: "VirtualBox manual ch. 6",
            ..CONTRACT
        }),
        linux: "DHCP is served by a firewall guest, where one is wanted; VirtualBox has a server to switch on.",
        ..MODE
    },
    Mode {
        id: "virtualbox/bridged",
        promise: "Guests are on the LAN, as the host is.",
        wiring: BRIDGED,
        contract: Some(Contract {
            cells: [Pass; 5],
            dhcp: Dhcp::Lan,
            host_address: true,
            note: "Over Wi-Fi guests borrow the station's MAC address, as an access point takes frames from no other.",
            source: "VirtualBox manual ch. 6",
            ..CONTRACT
        }),
        linux: "The uplink becomes a port of a bridge that takes over its addresses; VirtualBox filters frames on the link instead. No MAC address is rewritten, so a Wi-Fi link cannot be the uplink.",
        ..MODE
    },
];
