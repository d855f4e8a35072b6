//! Every construct with VMs as guests, one system a test. Under emulation a construct takes half a minute and more.

use netloom::compare::cases;

use crate::rig::Rig;

macro_rules! systems {
    ($($name:ident $system:literal)*) => {
        const SYSTEMS: &[&str] = &[$($system),*];
        $(#[test] #[ignore = "slow"] fn $name() { with_vms($system) })*
    };
}

systems! {
    virtualbox "virtualbox"
    vmware "vmware"
    libvirt "libvirt"
    hyper_v "hyper-v"
    esxi "esxi"
    vsphere "vsphere"
    proxmox "proxmox"
    incus "incus"
    xcp_ng "xcp-ng"
    openstack "openstack"
    harvester "harvester"
    vagrant "vagrant"
}

fn system(id: &str) -> &str {
    id.split('/').next().unwrap()
}

fn with_vms(wanted: &str) {
    let rig = Rig::new().with_images();
    let mut constructs: Vec<&str> =
        cases::all().map(|case| case.mode.id).filter(|id| system(id) == wanted).collect();
    constructs.dedup();
    let mut bad = Vec::new();
    for construct in constructs {
        let ended = rig.run(&["-q", "compare", "--guests", "vm", "--jobs", "1", "--json", construct]);
        let counts = &ended.json()["counts"];
        let odd = ["differ", "unknown", "failed"].iter().any(|name| counts[name] != 0);
        // 3: this kernel cannot build it.
        if odd || ![0, 3].contains(&ended.code) {
            let rows = ended.json()["rows"].to_string();
            bad.push(format!("{construct}: exit {}, {counts}: {rows}", ended.code));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    rig.assert_gone();
}

#[test]
fn each_system_has_its_test() {
    let mut known: Vec<&str> = cases::all().map(|case| system(case.mode.id)).collect();
    known.dedup();
    assert_eq!(known, SYSTEMS);
}
