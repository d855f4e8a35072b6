//! The system's libvirt: other people's domains and networks on it, and the daemon itself killed.

use crate::host::PlayedHost;
use crate::rig::{Ended, eventually};

const LAB: &str = "
lab: served
networks:
  lan: { mode: nat, subnet: 10.47.0.0/24 }
guests:
  a: { kind: vm, nics: [{ network: lan, address: 10.47.0.10/24 }], serve: [tcp/80] }
  n: { kind: namespace, nics: [{ network: lan, address: 10.47.0.12/24 }] }
";

/// A daemon with all its directories in the host's mount namespace, and on it what others have: domains and networks with
/// names and metadata that miss ours by a little, running and not.
const DAEMON: &str = r#"
    cd "$WORK"; mkdir etc; cp -a /etc/libvirt/. etc; mount --bind etc /etc/libvirt
    if [ -e /dev/kvm ]; then mknod kvm c 10 232; chmod 666 kvm; mount --bind kvm /dev/kvm; fi
    for place in /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do mount -t tmpfs -o mode=755 tmpfs $place; done
    mkdir -p /run/libvirt /var/cache/libvirt/qemu
    virtlogd -d -p /run/virtlogd.pid; libvirtd -d -p /run/libvirtd.pid
    virsh() { command virsh -q -c qemu:///system "$@" >/dev/null; }
    domain() {
        printf '<domain type="qemu"><name>%s</name><memory unit="MiB">16</memory>%s<os><type arch="x86_64" machine="pc">hvm</type></os>
            <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>' "$1" "$2" >domain.xml
        virsh define domain.xml
    }
    mark() { printf '<metadata><n:guest xmlns:n="%s" lab="%s" guest="%s"/></metadata>' "$@"; }
    domain served "$(mark https://netloom.dev/ns/2 served a)"
    domain served-b "$(mark https://netloom.dev/ns served b)"
    domain served-a-a ""
    domain xserved-a "$(mark https://netloom.dev/ns/1/ served a)"
    virsh start served-b
    for name in netloom served lan served-lan; do
        printf '<network><name>%s</name><forward mode="open"/><bridge name="vb-%s"/><ip address="172.30.%s.1" netmask="255.255.255.0"/></network>' \
            $name $name $((count = ${count:-0} + 1)) >network.xml
        virsh net-define network.xml
    done
    virsh net-start served
    # A bridge without ports takes a moment to say that it has no carrier.
    until [ "$(ip -j link show vb-served | jq -r '.[0].operstate')" = DOWN ]; do sleep 0.1; done
    until [ -z "$(ip -6 address show tentative)" ]; do sleep 0.1; done
"#;

const LOOK: &str = r#"
    v() { virsh -q -c qemu:///system "$@"; }
    v list --all; v net-list --all
    for name in $(v list --all --name); do v dumpxml $name; done
    for name in $(v net-list --all --name); do v net-dumpxml $name; done
"#;

/// What the host and its libvirt hold; processes that are no QEMU's of ours are in the host's own look.
fn look(host: &PlayedHost) -> String {
    host.look() + &host.shell(LOOK)
}

fn emulators(host: &PlayedHost) -> Vec<String> {
    host.processes().into_iter().filter(|process| process.contains("qemu-system")).collect()
}

#[test]
#[ignore = "slow"]
fn a_daemon_killed_and_others_on_it() {
    let host = PlayedHost::new();
    host.use_images();
    host.shell(&format!("WORK={}\n{DAEMON}", host.work.display()));
    let before = look(&host);
    let file = host.file("lab.yaml", LAB);
    let kill = || {
        host.shell("kill -9 $(cat /run/libvirtd.pid); while pidof libvirtd >/dev/null; do sleep 0.05; done")
    };
    let again = || host.shell("libvirtd -d -p /run/libvirtd.pid");
    let works = "busybox nc -w 2 10.47.0.10 80 </dev/null | grep -q served/a";
    let answers = |when: &str| {
        let run = || host.other(&["sh", "-c", works]).output().unwrap();
        eventually(when, || run().status.success().then_some(()), run);
    };

    host.run(&["up", &file]).said(0, &[]);
    answers("at first");
    assert!(host.shell("virsh -q -c qemu:///system list --name").contains("served-a\n"));

    // A netloom that lacks the program that could ask the daemon, or has another release's, does not take the guest for gone.
    let bare = host.work.join("netloom");
    std::fs::copy(env!("CARGO_BIN_EXE_netloom"), &bare).unwrap();
    let refused = |why: &str| {
        for verb in [["status", "served"], ["down", "served"], ["up", &file]] {
            let words = [&[bare.to_str().unwrap()], &verb[..]].concat();
            Ended::from(host.other(&words).output().unwrap()).said(3, &[why, "netloom-libvirt", "Hint: "]);
        }
    };
    refused("there is no");
    let worker = env!("CARGO_BIN_EXE_netloom-libvirt");
    host.shell(&format!(
        "cd {}; printf '#!/bin/sh\nshift 2; exec {worker} --version 0.0.1 \"$@\"\n' >netloom-libvirt; chmod +x netloom-libvirt",
        host.work.display()
    ));
    refused("netloom of 0.0.1");
    answers("after one half of netloom");

    // The guest goes on without the daemon: it is not said to be gone, nor is the lab taken from under it.
    kill();
    answers("without the daemon");
    for verb in [["status", "served"], ["down", "served"], ["up", &file]] {
        host.run(&verb).said(3, &["system daemon does not run", "served-a", "Hint: "]);
    }
    assert_eq!(emulators(&host).len(), 1, "{:?}", emulators(&host));
    answers("after all that");

    again();
    host.run(&["up", &file]).said(0, &[]);
    answers("with another daemon");
    host.ok(&["plan", "--check", "served"]);
    host.ok(&["down", "served"]);
    let last = std::cell::RefCell::new(String::new());
    let same = || {
        last.replace(look(&host));
        (*last.borrow() == before).then_some(())
    };
    eventually("all of others as before", same, || crate::host::difference(&before, &last.borrow()));
    host.shell(
        "virsh -q -c qemu:///system destroy served-b; kill $(cat /run/libvirtd.pid) $(cat /run/virtlogd.pid)",
    );
    host.assert_gone();
}
