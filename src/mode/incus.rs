//! Incus and LXD: managed networks.

use super::contract::CONTRACT;
use super::contract::Direction::{G2g, G2h, H2g};
use super::contract::Promise::{Block, Forward, Pass};
use super::wiring::{MACVLAN, NAT, ROUTER};
use super::{Contract, Dhcp, MODE, Mode};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "incus/bridge",
        promise: "Guests reach the host, each other and, behind the host's address, everything outside; network forwards lead in.",
        wiring: NAT,
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Pass, Forward],
            dhcp: Dhcp::Server,
            host_address: true,
            note: "Ports outside are led in by network forwards. Guests have DNS names.",
            source: "incus network_bridge, network_forwards",
            ..CONTRACT
        }),
        linux: "Incus picks a free subnet of each family; here the file names them. A forward there listens on an address of its own, here on the host's addresses unless it names one. Incus itself keeps nobody out who has a route to the guests' subnet; here only forwards lead in, as it is promised.",
        ..MODE
    },
    Mode {
        id: "incus/macvlan",
        promise: "Guests are on the LAN and reach each other; the host is kept apart.",
        wiring: MACVLAN,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Pass, Pass],
            inferred: &[G2g],
            dhcp: Dhcp::Lan,
            source: "incus network_macvlan",
            ..CONTRACT
        }),
        ..MODE
    },
    Mode {
        id: "incus/ovn",
        promise: "Guests reach each other and, behind a virtual router's address on the LAN, everything outside; forwards lead in, and the host is kept apart.",
        wiring: ROUTER,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Pass, Forward],
            inferred: &[G2h, H2g],
            dhcp: Dhcp::Server,
            note: "A virtual router joins it to an uplink network; there are ACLs, forwards, load balancers and peerings besides.",
            source: "incus network_ovn",
            ..CONTRACT
        }),
        linux: "The router is a network namespace with a macvlan on the uplink, in place of OVN; it has forwards, and no ACLs, load balancers or peers.",
        ..MODE
    },
];
