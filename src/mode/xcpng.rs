//! XCP-ng: networks of a host or pool.

use super::contract::CONTRACT;
use super::contract::Direction::{G2h, G2l, H2g, L2g};
use super::contract::Promise::{Block, Pass};
use super::wiring::{BRIDGED, INTERNAL, OVERLAY};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, Mode};

/// What a network of guests alone promises.
const ALONE: Contract =
    Contract { cells: [Block, Block, Pass, Block, Block], source: "xcp-ng networking", ..CONTRACT };

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "xcp-ng/external",
        promise: "Guests are on the LAN, as the host's management interface is.",
        wiring: BRIDGED,
        contract: Some(Contract {
            cells: [Pass; 5],
            inferred: &[G2h, H2g],
            dhcp: Dhcp::Lan,
            host_address: true,
            note: "The host is there by its management interface. On a raw network the guest has the trunk.",
            source: "xcp-ng networking",
            ..CONTRACT
        }),
        linux: "A Linux bridge in place of Open vSwitch.",
        ..MODE
    },
    Mode {
        id: "xcp-ng/private",
        promise: "Guests reach each other alone; the host has no leg.",
        wiring: INTERNAL,
        contract: Some(Contract { inferred: &[G2h, H2g], ..ALONE }),
        linux: "A Linux bridge in place of Open vSwitch.",
        ..MODE
    },
    Mode {
        id: "xcp-ng/global-private",
        promise: "Guests reach each other alone, over as many hosts as there are; the host has no leg.",
        wiring: OVERLAY,
        defaults: Defaults { mtu: 1450, ..DEFAULTS },
        contract: Some(Contract {
            inferred: &[G2h, H2g, G2l, L2g],
            note: "GRE or VXLAN carries it between hosts, at a cost of up to 50 bytes of MTU.",
            source: "Xen Orchestra SDN controller",
            ..ALONE
        }),
        linux: "One network is the part of one host, with the MTU that a tunnel leaves; `links: [{ between: [east, west], vxlan: 100 }]` joins the parts of two. GRE is not among the primitives.",
        ..MODE
    },
];
