//! The libvirt adapter against libvirt itself: its schema, its test driver, and its embedded QEMU driver in a network
//! namespace of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "libvirt/guest.rs"]
mod guest;
#[path = "libvirt/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use netloom::host::domains::Domains;
use netloom::host::libvirt::{Acceleration, Client, Connection, DomainSpec, Kernel, NicSpec, domain_xml};
use rig::{
    Scratch, WORKER, command_line, emulators, in_own_network, names_of, nic, open, run, spec, workers,
};

#[test]
fn libvirts_schema_accepts_the_xml() {
    let scratch = Scratch::new();
    let plain = spec("lab", "pc", &scratch.0.join("pc.log"));
    let whole = DomainSpec {
        acceleration: Acceleration::Kvm,
        emulator: Some("/usr/bin/qemu-system-x86_64".into()),
        kernel: Some(Kernel {
            kernel: "/boot/a&b <vmlinux>".into(),
            initrd: Some("/boot/initrd".into()),
            cmdline: "console=ttyS0 quiet \"x\" <&>".into(),
        }),
        disk: Some("/d.qcow2".into()),
        seed: Some("/s.img".into()),
        nics: vec![nic("nlt0", 1), NicSpec { mtu: 9000, ..nic("nlt1", 2) }],
        ..plain.clone()
    };
    for spec in [plain, whole] {
        let file = scratch.0.join("domain.xml");
        let xml = domain_xml(&spec).unwrap();
        fs::write(&file, &xml).unwrap();
        run("virt-xml-validate", &[file.to_str().unwrap(), "domain"]);
        if let Some(boot) = &spec.kernel {
            // xmllint, not our own reader, undoes the escapes.
            let read = run("xmllint", &["--xpath", "string(/domain/os/cmdline)", file.to_str().unwrap()]);
            assert_eq!(read.trim_end(), boot.cmdline);
        }
        let hpet = run(
            "xmllint",
            &["--xpath", "string(//clock/timer[@name='hpet']/@present)", file.to_str().unwrap()],
        );
        assert_eq!(
            hpet.trim_end(),
            "no",
            "it would cost a guest at rest most of what it takes of the processor"
        );
    }
}

#[test]
fn a_text_that_xml_cannot_carry_is_refused() {
    let mut spec = spec("lab", "pc", Path::new("/x.log"));
    spec.digest = "\u{1}".into();
    assert!(domain_xml(&spec).unwrap_err().to_string().contains("lab-pc"));
}

#[tokio::test]
async fn what_is_not_ours_stays() {
    let connection = Connection::from_uri("test:///default").unwrap();
    let client = Client::spawn_program(Path::new(WORKER), &connection, false).await.unwrap();
    // The test driver comes with a running domain named `test`.
    assert_eq!(client.list().await.unwrap(), []);
    let error = client.remove("test").await.unwrap_err();
    assert!(error.to_string().contains("`test` is not netloom's"), "{error}");
    let taken =
        "<domain type='test'><name>test</name><memory>1024</memory><os><type>hvm</type></os></domain>";
    assert!(client.create(taken).await.unwrap_err().to_string().contains("`test`"));
    client.remove("nothing").await.unwrap();
    assert!(client.info().await.unwrap_err().report().contains("QEMU"));
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_does_not_open_says_why() {
    let connection = Connection::from_uri("qemu+unix:///system?socket=/nonexistent/libvirt-sock").unwrap();
    let error = Client::spawn_program(Path::new(WORKER), &connection, false).await.err().unwrap();
    assert_eq!(error.kind, netloom::error::Kind::Host);
    let report = error.report();
    assert!(report.contains("/nonexistent/libvirt-sock") && report.contains("Hint:"), "{report}");
}

#[tokio::test]
async fn a_worker_that_is_not_there_or_of_another_release_or_without_its_library_is_told() {
    let scratch = Scratch::new();
    let connection = Connection::from_uri("test:///default").unwrap();
    let absent = scratch.0.join("netloom-libvirt");
    let said = async |program: &Path| {
        let error = Client::spawn_program(program, &connection, false).await.err().unwrap();
        assert_eq!(error.kind, netloom::error::Kind::Host, "{error:?}");
        error.report()
    };
    let report = said(&absent).await;
    assert!(report.contains(absent.to_str().unwrap()) && report.contains("in one directory"), "{report}");

    // What the client passes, but for the version.
    let old = scratch.0.join("old");
    let script = format!("#!/bin/sh\nshift 2\nexec {WORKER} --version 0.0.1 \"$@\"\n");
    fs::write(&old, script).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o700)).unwrap();
    let report = said(&old).await;
    assert!(report.contains("netloom of 0.0.1") && report.contains("same release"), "{report}");

    // The loader finds an empty file in the library's place.
    let bare = scratch.0.join("bare");
    fs::create_dir(scratch.0.join("lib")).unwrap();
    fs::write(scratch.0.join("lib/libvirt.so.0"), "").unwrap();
    let lib = scratch.0.join("lib");
    let script = format!("#!/bin/sh\nLD_LIBRARY_PATH={} exec {WORKER} \"$@\"\n", lib.display());
    fs::write(&bare, script).unwrap();
    fs::set_permissions(&bare, fs::Permissions::from_mode(0o700)).unwrap();
    let report = said(&bare).await;
    assert!(report.contains("cannot be loaded") && report.contains("apt install"), "{report}");
    // netloom itself does without: most of what it does has nothing to do with VMs, and libvirt takes long to load.
    let mut netloom = Command::new(env!("CARGO_BIN_EXE_netloom"));
    assert!(netloom.arg("--version").env("LD_LIBRARY_PATH", &lib).output().unwrap().status.success());
}

#[test]
fn domains_come_outlive_their_worker_and_go() {
    in_own_network(|| async {
        let scratch = Scratch::new();
        for tap in ["nlt0", "nlt1"] {
            run("ip", &["tuntap", "add", tap, "mode", "tap", "vnet_hdr"]);
        }
        let mut pc = spec("lab", "pc", &scratch.0.join("pc.log"));
        pc.nics = vec![nic("nlt0", 1)];
        let mut web = spec("lab", "web", &scratch.0.join("web.log"));
        web.nics = vec![nic("nlt1", 2)];

        let client = open(&scratch.root()).await;
        let info = client.info().await.unwrap();
        assert!(Path::new(&info.emulator).is_file(), "{info:?}");
        assert_eq!(info.domains, Vec::<String>::new());
        let (pc, web) = (domain_xml(&pc).unwrap(), domain_xml(&web).unwrap());
        let (one, other) = tokio::join!(client.create(&pc), client.create(&web));
        one.unwrap();
        other.unwrap();
        let before = client.list().await.unwrap();
        assert_eq!(names_of(&before), ["lab-pc", "lab-web"]);
        for (domain, mac) in before.iter().zip(["52:54:00:00:00:01", "52:54:00:00:00:02"]) {
            assert!(
                domain.running && domain.lab == "lab" && domain.digest == "0123456789abcdef",
                "{domain:?}"
            );
            assert!(command_line(domain.pid.unwrap()).contains(mac));
            assert!(domain.console.as_deref().is_some_and(|pty| Path::new(pty).exists()), "{domain:?}");
        }
        assert!(client.create(&pc).await.unwrap_err().to_string().contains("there is one of that name"));
        client.close().await.unwrap();

        // A later worker finds them as they were.
        let client = open(&scratch.root()).await;
        assert_eq!(client.list().await.unwrap(), before);
        assert_eq!(client.info().await.unwrap().domains, ["lab-pc", "lab-web"]);
        client.remove("lab-pc").await.unwrap();
        assert_eq!(emulators(&scratch.0), [before[1].pid.unwrap()]);
        assert_eq!(names_of(&client.list().await.unwrap()), ["lab-web"]);
        client.remove("lab-web").await.unwrap();
        client.remove("lab-web").await.unwrap();
        assert_eq!(client.list().await.unwrap(), []);
        client.close().await.unwrap();
        assert_eq!(emulators(&scratch.0), Vec::<u32>::new());
        // The taps are ours, not libvirt's.
        assert!(run("ip", &["-br", "link"]).contains("nlt0"));
    });
}

#[test]
fn a_domain_that_does_not_start_leaves_nothing() {
    in_own_network(|| async {
        let scratch = Scratch::new();
        let mut spec = spec("lab", "pc", &scratch.0.join("pc.log"));
        spec.kernel =
            Some(Kernel { kernel: "/nonexistent/vmlinux".into(), initrd: None, cmdline: String::new() });
        let client = open(&scratch.root()).await;
        let error = client.create(&domain_xml(&spec).unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("lab-pc") && error.contains("/nonexistent/vmlinux"), "{error}");
        assert_eq!(client.info().await.unwrap().domains, Vec::<String>::new());
        client.close().await.unwrap();
        assert_eq!(emulators(&scratch.0), Vec::<u32>::new());
        assert!(!scratch.root().exists());
    });
}

#[test]
fn guests_survive_the_death_of_the_worker_and_the_lock_goes_with_it() {
    in_own_network(|| async {
        let scratch = Scratch::new();
        let client = open(&scratch.root()).await;
        client.create(&domain_xml(&spec("lab", "pc", &scratch.0.join("pc.log"))).unwrap()).await.unwrap();
        let holder = fs::read_to_string(scratch.root().join("worker.lock")).unwrap();
        assert!(command_line(holder.parse().unwrap()).contains("netloom-libvirt "));
        run("kill", &["-9", &holder]);
        let error = client.list().await.unwrap_err();
        assert!(error.to_string().contains("ended unexpectedly"), "{error}");
        let client = open(&scratch.root()).await;
        assert!(client.list().await.unwrap()[0].running);
        client.remove("lab-pc").await.unwrap();
        client.close().await.unwrap();
        assert_eq!(emulators(&scratch.0), Vec::<u32>::new());
    });
}

#[test]
fn clients_of_one_root_share_a_worker_until_the_last_leaves() {
    in_own_network(|| async {
        let scratch = Scratch::new();
        let root = scratch.root();
        let (first, second) = tokio::join!(open(&root), open(&root));
        first.create(&domain_xml(&spec("lab", "pc", &scratch.0.join("pc.log"))).unwrap()).await.unwrap();
        assert_eq!(names_of(&second.list().await.unwrap()), ["lab-pc"]);
        assert_eq!(workers(&root).len(), 1);
        first.close().await.unwrap();
        let third = open(&root).await;
        assert_eq!(names_of(&third.list().await.unwrap()), ["lab-pc"]);
        second.remove("lab-pc").await.unwrap();
        third.close().await.unwrap();
        second.close().await.unwrap();
        assert_eq!(workers(&root), Vec::<u32>::new());
        assert!(!root.exists()); // it holds no domain any more
    });
}
