//! ESXi and vSphere: port groups of a virtual switch. The host has no leg on one unless a VMkernel NIC is put there.

use super::contract::CONTRACT;
use super::contract::Direction::{G2h, H2g};
use super::contract::Promise::{Block, Pass};
use super::wiring::{INTERNAL, PORT_GROUP};
use super::{Contract, Dhcp, MODE, Mode, Shown, State, Wiring};

/// What a port group on a switch with an uplink promises.
const UPLINKED: Contract = Contract {
    cells: [Block, Block, Pass, Pass, Pass],
    inferred: &[G2h, H2g],
    dhcp: Dhcp::Lan,
    source: "vim.host.PortGroup.Specification",
    ..CONTRACT
};

pub(super) const MODES: &[Mode] = &[
    Mode {
        id: "esxi/port-group",
        promise: "Guests are on the LAN, or on one VLAN of it; the host is kept apart.",
        wiring: PORT_GROUP,
        contract: Some(Contract {
            states: &[
                State { label: "VLAN ID 0", keys: "", cells: UPLINKED.cells, hairpin: false, nic: "" },
                State {
                    label: "VLAN ID 10",
                    keys: "tag: 10",
                    cells: UPLINKED.cells,
                    hairpin: false,
                    nic: "",
                },
            ],
            note: "VLAN ID 0 leaves frames untagged (EST); from 1 to 4094 the switch tags them (VST). Only a VMkernel NIC on the same segment brings the host in.",
            ..UPLINKED
        }),
        linux: "`tag: 20` is VLAN ID 20, no `tag` is VLAN ID 0. A filter on the bridge keeps the host's own frames from the guests' ports.",
        ..MODE
    },
    Mode {
        id: "esxi/port-group-trunk",
        promise: "Guests are on the LAN with all its VLANs, tagged; the host is kept apart.",
        wiring: PORT_GROUP,
        contract: Some(Contract {
            note: "VLAN ID 4095 hands every tag through to the guest (VGT): the trunk of a firewall VM.",
            ..UPLINKED
        }),
        linux: "`vlans` names the VLANs that the uplink brings, and `trunk: all` hands every one of them to the guest. Without `vlans` the bridge does not look at tags, and every frame reaches the guest as it came.",
        shown: Shown { keys: "vlans: { lan: 10 }", nic: "trunk: [lan]" },
        ..MODE
    },
    Mode {
        id: "esxi/internal",
        promise: "Guests reach each other alone; the host has no leg.",
        wiring: INTERNAL,
        contract: Some(Contract {
            cells: [Block, Block, Pass, Block, Block],
            inferred: &[G2h, H2g],
            note: "A virtual switch without an uplink.",
            source: "vSphere networking manual",
            ..CONTRACT
        }),
        ..MODE
    },
    Mode {
        id: "vsphere/private-vlan-isolated",
        promise: "Guests are on the LAN, kept from each other and from the host.",
        wiring: Wiring { isolated: true, ..PORT_GROUP },
        contract: Some(Contract {
            cells: [Block, Block, Block, Pass, Pass],
            note: "An isolated port hears promiscuous ports alone; a community port hears those and its own community.",
            source: "vSphere networking manual",
            ..UPLINKED
        }),
        linux: "Guests have isolated ports, unless a NIC's `pvlan` makes its port promiscuous or puts it into a community; the uplink is promiscuous. vSphere carries the secondary VLAN on to other hosts, which one bridge need not.",
        ..MODE
    },
];
