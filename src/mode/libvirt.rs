//! libvirt: virtual networks by forward mode, direct attachment, and user-mode networking.

use super::contract::CONTRACT;
use super::contract::Direction::{G2g, G2h, H2g, L2g};
use super::contract::Promise::{Block, Depends, Forward, Pass};
use super::wiring::{BRIDGED, ENGINE, HOST_ONLY, INTERNAL, MACVLAN, NAT, ROUTED};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, MacvlanMode, Mode, State, Uplink, Wiring};

/// The network `default` of every installation.
const DEFAULT_NETWORK: Defaults =
    Defaults { subnet: Some("192.168.122.0/24"), range: Some((2, 254)), ..DEFAULTS };
/// What a virtual network whose host has an address promises, with everything beyond it.
const SERVED: Contract = Contract {
    cells: [Pass; 5],
    dhcp: Dhcp::Server,
    host_address: true,
    source: "libvirt formatnetwork",
    ..CONTRACT
};
const DIRECT: &str = "A macvlan in place of libvirt's macvtap for namespaces, and a macvtap for VMs: the same driver of the kernel.";

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "libvirt/nat",
        promise: "Guests reach the host, each other and, behind the host's address, everything outside; nothing outside reaches them.",
        wiring: Wiring { forwards: false, ..NAT },
        defaults: DEFAULT_NETWORK,
        contract: Some(Contract { cells: [Pass, Pass, Pass, Pass, Block], ..SERVED }),
        ..MODE
    },
    Mode {
        id: "libvirt/route",
        promise: "Guests reach the host, each other and the outside with their own addresses, and are reached there.",
        wiring: ROUTED,
        contract: Some(Contract {
            note: "What comes from the LAN needs a route to the network there.",
            ..SERVED
        }),
        ..MODE
    },
    Mode {
        id: "libvirt/open",
        promise: "As libvirt/route, and nothing is filtered at all.",
        wiring: ROUTED,
        contract: Some(Contract { note: "Like route, without a single firewall rule.", ..SERVED }),
        linux: "The same as libvirt/route, since netloom filters nothing there either.",
        ..MODE
    },
    Mode {
        id: "libvirt/isolated",
        promise: "Guests and host reach each other; nothing else is reached and nothing else reaches them.",
        wiring: HOST_ONLY,
        contract: Some(Contract { cells: [Pass, Pass, Pass, Block, Block], ..SERVED }),
        ..MODE
    },
    Mode {
        id: "libvirt/very-isolated",
        promise: "Guests reach each other alone; the host has no leg.",
        wiring: INTERNAL,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Block, Block],
            source: "libvirt formatnetwork (no <ip>)",
            ..CONTRACT
        }),
        ..MODE
    },
    Mode {
        id: "libvirt/bridge",
        promise: "Guests are on the LAN, as the host is.",
        wiring: BRIDGED,
        contract: Some(Contract { dhcp: Dhcp::Lan, ..SERVED }),
        linux: "libvirt expects a bridge that is there already; netloom makes one and puts the uplink on it.",
        ..MODE
    },
    Mode {
        id: "libvirt/macvtap-bridge",
        promise: "Guests are on the LAN and reach each other; the host is kept apart.",
        wiring: MACVLAN,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Pass, Pass],
            dhcp: Dhcp::Lan,
            source: "libvirt formatnetwork; the macvtap host caveat",
            ..CONTRACT
        }),
        linux: DIRECT,
        ..MODE
    },
    Mode {
        id: "libvirt/macvtap-vepa",
        promise: "Guests are on the LAN, and reach each other where the switch outside sends their frames back; the host is kept apart.",
        wiring: Wiring { uplink: Uplink::Macvlan(MacvlanMode::Vepa), ..MACVLAN },
        contract: Some(Contract {
            cells: [Block, Block, Depends, Pass, Pass],
            dhcp: Dhcp::Lan,
            states: &[
                State {
                    label: "an ordinary switch outside",
                    keys: "",
                    cells: [Block, Block, Block, Pass, Pass],
                    hairpin: false,
                    nic: "",
                },
                State {
                    label: "a switch outside that hairpins",
                    keys: "",
                    // What such a switch sends back reaches the host's own link as well.
                    cells: [Pass; 5],
                    hairpin: true,
                    nic: "",
                },
            ],
            note: "Guests meet on a switch outside that hairpins, and nowhere else. There they meet the host, too: what the switch sends back reaches the host's own link as well, so that the documented wall between guests and host is one of ordinary switches.",
            source: "libvirt formatnetwork",
            ..CONTRACT
        }),
        linux: "A macvlan in place of libvirt's macvtap for namespaces, and a macvtap for VMs: the same driver of the kernel. A switch that hairpins sends back what guests and host have for each other, too, so that there they meet although libvirt's page speaks of guests alone.",
        ..MODE
    },
    Mode {
        id: "libvirt/macvtap-private",
        promise: "Guests are on the LAN, kept from each other and from the host.",
        wiring: Wiring { uplink: Uplink::Macvlan(MacvlanMode::Private), ..MACVLAN },
        contract: Some(Contract {
            cells: [Block, Block, Block, Pass, Pass],
            dhcp: Dhcp::Lan,
            source: "libvirt formatnetwork",
            ..CONTRACT
        }),
        linux: DIRECT,
        ..MODE
    },
    Mode {
        id: "libvirt/user",
        promise: "Each guest alone behind a NAT process: it reaches everything, and is reached through port forwards only.",
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
            inferred: &[G2h, H2g, G2g, L2g],
            dhcp: Dhcp::Server,
            note: "By slirp or by passt, of which passt does without privilege.",
            source: "libvirt formatdomain",
            ..CONTRACT
        }),
        linux: "The addresses are slirp's; passt gives a guest the host's own. One engine, a namespace, serves all guests, with ports isolated from each other; slirp and passt run once for each NIC. Pings pass too, which slirp allows only where the host's users may ping.",
        ..MODE
    },
    Mode {
        id: "libvirt/isolated-port",
        promise: "As libvirt/nat, with the guests kept from each other.",
        wiring: Wiring { forwards: false, isolated: true, ..NAT },
        defaults: DEFAULT_NETWORK,
        contract: Some(Contract {
            cells: [Pass, Pass, Block, Pass, Block],
            note: "<port isolated='yes'/> on the interfaces of a nat network.",
            source: "libvirt formatdomain",
            ..SERVED
        }),
        linux: "All of the network's guests are isolated, and nothing is routed from one to another over the host.",
        ..MODE
    },
];
