//! Proxmox VE: bridges of the host, and zones of its software-defined network.

use super::contract::CONTRACT;
use super::contract::Direction::{G2h, G2l, H2g, L2g};
use super::contract::Promise::{Block, Depends, Forward, Pass};
use super::example::HOST_IN_VLAN;
use super::wiring::{BRIDGED, NAT, OVERLAY, PORT_GROUP};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, Mode, Shown, State, Wiring};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "proxmox/bridge",
        promise: "Guests are on the LAN, as the host is.",
        wiring: BRIDGED,
        contract: Some(Contract {
            cells: [Pass; 5],
            dhcp: Dhcp::Lan,
            host_address: true,
            source: "pve-network",
            ..CONTRACT
        }),
        ..MODE
    },
    Mode {
        id: "proxmox/masquerade",
        promise: "Guests and host reach each other; behind the host's address guests reach everything, and port forwards lead in. Nobody hands out addresses.",
        wiring: Wiring { dhcp: false, dns: false, ..NAT },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Pass, Forward],
            host_address: true,
            source: "pve-network",
            ..CONTRACT
        }),
        linux: "What a Proxmox host has in `post-up` lines is part of the mode.",
        ..MODE
    },
    Mode {
        id: "proxmox/vlan-aware",
        promise: "Guests are on one VLAN of the LAN; the host is there where it has a VLAN interface.",
        wiring: PORT_GROUP,
        contract: Some(Contract {
            cells: [Depends, Depends, Pass, Pass, Pass],
            dhcp: Dhcp::Lan,
            states: &[
                State {
                    label: "the host has no VLAN interface",
                    keys: "vlans: { lan: 10 }",
                    cells: [Block, Block, Pass, Pass, Pass],
                    hairpin: false,
                    nic: "",
                },
                State {
                    label: "the host has a VLAN interface",
                    keys: HOST_IN_VLAN,
                    cells: [Pass; 5],
                    hairpin: false,
                    nic: "",
                },
            ],
            note: "Guests meet within one tag; a VLAN interface on the bridge lets the host into it.",
            source: "pve-network",
            ..CONTRACT
        }),
        linux: "`vlans` makes the bridge VLAN-aware and the uplink its trunk; a guest's `vlan` is its tag. The host's own frames are untagged, where no guest is; `host` in a VLAN is a VLAN interface on the bridge.",
        shown: Shown { nic: "vlan: lan", ..MODE.shown },
        ..MODE
    },
    Mode {
        id: "proxmox/sdn-simple",
        promise: "Guests and host reach each other; with SNAT guests reach everything behind the host's address; nothing outside reaches them.",
        wiring: Wiring { forwards: false, ..NAT },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Depends, Block],
            dhcp: Dhcp::Server,
            host_address: true,
            states: &[
                State {
                    label: "with SNAT",
                    keys: "",
                    cells: [Pass, Pass, Pass, Pass, Block],
                    hairpin: false,
                    nic: "",
                },
                State {
                    label: "without SNAT",
                    keys: "egress: none",
                    cells: [Pass, Pass, Pass, Block, Block],
                    hairpin: false,
                    nic: "",
                },
            ],
            note: "The way out is the subnet's SNAT option; the host is reached where the subnet has a gateway.",
            source: "pvesdn",
            ..CONTRACT
        }),
        linux: "SNAT is on unless the file says `egress: none`; in Proxmox it is off until somebody ticks it, and guests' packets leave unanswered.",
        ..MODE
    },
    Mode {
        id: "proxmox/sdn-qinq",
        promise: "Guests are on a customer's VLAN within a service VLAN of the LAN; the host is kept apart.",
        wiring: PORT_GROUP,
        defaults: Defaults { mtu: 1496, ..DEFAULTS },
        contract: Some(Contract {
            cells: [Block, Block, Pass, Pass, Pass],
            inferred: &[G2h, H2g],
            dhcp: Dhcp::Lan,
            note: "A service tag outside, a customer's tag inside it; MTU 1496.",
            source: "pvesdn",
            ..CONTRACT
        }),
        linux: "`tag: [20, 30]` are the two tags, the service's first; without them frames are untagged, with the MTU that a second tag leaves.",
        shown: Shown { keys: "tag: [100, 10]", ..MODE.shown },
        ..MODE
    },
    Mode {
        id: "proxmox/sdn-vxlan",
        promise: "Guests reach each other alone, over as many hosts as there are; the host has no leg.",
        wiring: OVERLAY,
        defaults: Defaults { mtu: 1450, ..DEFAULTS },
        contract: Some(Contract {
            cells: [Block, Block, Pass, Block, Block],
            inferred: &[G2h, H2g, G2l, L2g],
            note: "UDP 4789 carries it between nodes; the MTU is 50 bytes smaller.",
            source: "pvesdn",
            ..CONTRACT
        }),
        linux: "One network is the part of one node, with the MTU that a tunnel leaves; `links: [{ between: [east, west], vxlan: 100 }]` joins the parts of two.",
        ..MODE
    },
];
