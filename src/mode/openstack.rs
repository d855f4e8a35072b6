//! OpenStack Neutron: provider and self-service networks, with the default security group.

use super::contract::CONTRACT;
use super::contract::Direction::{G2h, H2g};
use super::contract::Promise::{Block, Depends, Forward, Pass};
use super::wiring::{PORT_GROUP, ROUTER};
use super::{Contract, Dhcp, MODE, Mode, State, Wiring};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "openstack/provider",
        promise: "Guests are on the LAN, or on one VLAN of it; what comes from there passes where a security group opens it.",
        wiring: Wiring { guarded: true, ..PORT_GROUP },
        contract: Some(Contract {
            cells: [Depends, Depends, Pass, Pass, Depends],
            dhcp: Dhcp::Optional,
            states: &[
                State {
                    label: "the default security group",
                    keys: "",
                    cells: [Block, Block, Pass, Pass, Block],
                    hairpin: false,
                    nic: "",
                },
                State {
                    label: "opened by a security group",
                    keys: "ingress: true",
                    cells: [Block, Block, Pass, Pass, Pass],
                    hairpin: false,
                    nic: "",
                },
                State {
                    label: "opened, and the host on the segment",
                    keys: "host: true\ningress: true",
                    cells: [Pass; 5],
                    hairpin: false,
                    nic: "",
                },
            ],
            note: "Flat, or a VLAN. The default security group lets nothing in; another one may.",
            source: "neutron intro-os-networking",
            ..CONTRACT
        }),
        linux: "`ingress: true` is a security group that lets everything in; the LAN hands out addresses, in place of Neutron. `tag: 20` is a VLAN network, no `tag` a flat one.",
        ..MODE
    },
    Mode {
        id: "openstack/self-service",
        promise: "Guests reach each other and, behind a virtual router's address on the LAN, everything outside; floating IPs lead in, and the host is kept apart.",
        wiring: ROUTER,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Pass, Forward],
            inferred: &[G2h, H2g],
            dhcp: Dhcp::Server,
            note: "A virtual router masquerades what leaves and maps floating IPs to guests. A guest that is a firewall needs port security switched off.",
            source: "neutron intro-os-networking",
            ..CONTRACT
        }),
        linux: "The router is a network namespace with a macvlan on the uplink. A floating IP is a forward of the ports one names, on an `address` of the LAN; there is no port security, so a firewall guest needs nothing switched off.",
        ..MODE
    },
];
