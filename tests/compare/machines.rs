//! Constructs with VMs as guests: one of each way of wiring. Under emulation a construct takes half a
//! minute and more, so the others are for `netloom compare --guests vm` by hand.

use crate::rig::Rig;

macro_rules! with_vms {
    ($($name:ident [$($construct:literal),*])*) => {
        $(#[test] #[ignore = "slow"] fn $name() { with_vms(&[$($construct),*]) })*
    };
}

with_vms! {
    behind_a_gateway ["virtualbox/nat", "openstack/self-service", "vmware/nat", "libvirt/route", "libvirt/isolated-port"]
    on_a_switch ["virtualbox/host-only", "esxi/port-group", "vsphere/private-vlan-isolated", "xcp-ng/private", "proxmox/sdn-vxlan"]
    on_the_uplink_itself ["libvirt/macvtap-bridge"]
}

fn with_vms(constructs: &[&str]) {
    let rig = Rig::new().with_images();
    let mut bad = Vec::new();
    for construct in constructs {
        let ended = rig.run(&["-q", "compare", "--guests", "vm", "--jobs", "1", "--json", construct]);
        let counts = &ended.json()["counts"];
        let odd = ["differ", "unknown", "failed"].iter().any(|name| counts[name] != 0);
        // 3: a state of it needs what this kernel lacks.
        if odd || counts["cells"] == 0 || ![0, 3].contains(&ended.code) {
            let rows = ended.json()["rows"].to_string();
            bad.push(format!("{construct}: exit {}, {counts}: {rows}", ended.code));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    rig.assert_gone();
}
