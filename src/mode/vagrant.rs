//! Vagrant: what `config.vm.network` knows, with VirtualBox as the provider.

use super::contract::CONTRACT;
use super::contract::Direction::{G2g, G2l};
use super::contract::Promise::{Block, Depends, Forward, Pass};
use super::wiring::{BRIDGED, ENGINE, HOST_ONLY};
use super::{Contract, DEFAULTS, Defaults, Dhcp, MODE, Mode, State, Wiring};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "vagrant/forwarded-port",
        promise: "Each guest alone behind a NAT engine: it reaches everything, and is reached through forwarded ports only.",
        wiring: Wiring { isolated: true, ..ENGINE },
        defaults: Defaults {
            subnet: Some("10.0.2.0/24"),
            gateway: 2,
            dns: Some(3),
            range: Some((15, 31)),
            ..DEFAULTS
        },
        contract: Some(Contract {
            cells: [Pass, Forward, Block, Pass, Forward],
            inferred: &[G2g],
            dhcp: Dhcp::Server,
            note: "The NAT of the provider.",
            source: "Vagrant networking docs",
            ..CONTRACT
        }),
        linux: "Guests share one engine and one subnet, with ports isolated from each other, so each has another address; with VirtualBox every guest is 10.0.2.15.",
        ..MODE
    },
    Mode {
        id: "vagrant/private-network",
        promise: "Guests and host reach each other; nothing else is reached and nothing else reaches them.",
        wiring: HOST_ONLY,
        defaults: Defaults { subnet: Some("192.168.56.0/24"), ..DEFAULTS },
        contract: Some(Contract {
            cells: [Pass, Pass, Pass, Block, Block],
            inferred: &[G2l],
            dhcp: Dhcp::Optional,
            host_address: true,
            source: "Vagrant networking docs",
            ..CONTRACT
        }),
        linux: "A guest without an `address` gets one by DHCP.",
        ..MODE
    },
    Mode {
        id: "vagrant/public-network",
        promise: "Guests are on the LAN; whether the host and they reach each other depends on the provider.",
        wiring: BRIDGED,
        contract: Some(Contract {
            cells: [Depends, Depends, Pass, Pass, Pass],
            dhcp: Dhcp::Lan,
            states: &[
                State {
                    label: "a provider that bridges",
                    keys: "",
                    cells: [Pass; 5],
                    hairpin: false,
                    nic: "",
                },
                State {
                    label: "a provider that uses macvtap",
                    keys: "host: false",
                    cells: [Block, Block, Pass, Pass, Pass],
                    hairpin: false,
                    nic: "",
                },
            ],
            note: "The bridged networking of the provider; where that is a macvtap, the host cannot reach the guest.",
            source: "Vagrant networking docs",
            ..CONTRACT
        }),
        linux: "A bridge in both states; `host: false` keeps the host's own frames from the guests' ports.",
        ..MODE
    },
];
