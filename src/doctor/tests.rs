//! The checks on made-up hosts: a directory plays the root of the file tree.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Family;
use super::kernel::{Trial, findings};
use super::*;

/// A made-up host; its directory goes with it.
struct Fake {
    host: Host,
    directory: PathBuf,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A host with these files, no programs and an ordinary user.
fn fake(name: &str, files: &[(&str, &str)]) -> Fake {
    let directory = std::env::temp_dir().join(format!("doctor-{name}-{}", std::process::id()));
    for (file, text) in files {
        let path = directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let host = Host { root: directory.clone(), path: OsString::new(), is_root: false, program: None };
    Fake { host, directory }
}

fn named<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("no finding `{name}`"))
}

/// A directory with links to the programs of this host that are named, and no others.
fn path_with(fake: &mut Fake, programs: &[&str]) {
    let directory = fake.directory.join("bin");
    fs::create_dir_all(&directory).unwrap();
    for program in programs {
        std::os::unix::fs::symlink("/bin/sh", directory.join(program)).unwrap();
    }
    fake.host.path = directory.into_os_string();
}

#[test]
fn the_family_is_read_from_os_release() {
    for (text, family) in [
        ("ID=debian\n", Some(Family::Debian)),
        ("ID=ubuntu\nID_LIKE=debian\n", Some(Family::Debian)),
        ("NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(Family::Debian)),
        ("ID=fedora\n", Some(Family::Fedora)),
        ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(Family::Fedora)),
        ("ID=manjaro\nID_LIKE=arch\n", Some(Family::Arch)),
        ("ID=nixos\n", None),
    ] {
        assert_eq!(fake("family", &[("etc/os-release", text)]).host.family(), family, "{text}");
    }
    assert_eq!(fake("no-family", &[]).host.family(), None);
}

#[test]
fn a_program_that_leaves_the_path_is_named_with_the_package_that_brings_it() {
    let mut host = fake("path", &[]);
    let required = ["dnsmasq", "nft", "busybox", "qemu-system-x86_64", "qemu-img", "apt-get", "dpkg-deb"];
    path_with(&mut host, &required);
    let complete = programs::examine(&host.host);
    assert!(!lacks_something(&complete), "{complete:?}");
    let warned: Vec<&str> =
        complete.iter().filter(|f| f.status == Status::Warning).map(|f| f.name.as_str()).collect();
    assert_eq!(warned, ["curl", "iperf3", "ping"], "what only some verbs need");

    fs::remove_file(host.directory.join("bin/dnsmasq")).unwrap();
    let without = programs::examine(&host.host);
    let missing: Vec<&str> =
        without.iter().filter(|f| f.status == Status::Missing).map(|f| f.name.as_str()).collect();
    assert_eq!(missing, ["dnsmasq"]);
    let mend = &named(&without, "dnsmasq").mend;
    assert_eq!(mend.debian.as_deref(), Some("sudo apt-get install --no-install-recommends dnsmasq-base"));
    assert_eq!(mend.fedora.as_deref(), Some("sudo dnf install dnsmasq"));
    assert_eq!(mend.arch.as_deref(), Some("sudo pacman -S --needed dnsmasq"));
}

#[test]
fn without_apt_the_guest_images_programs_must_be_on_the_host() {
    let mut host = fake("no-apt", &[]);
    path_with(&mut host, &["bridge", "dash", "ip", "iperf3", "ping", "qemu-ga", "socat", "ss"]);
    let found = programs::examine(&host.host);
    let image = named(&found, "guest-image");
    assert_eq!(image.status, Status::Missing);
    assert!(image.detail.ends_with("missing: tcpdump"), "{}", image.detail);
    assert!(image.mend.fedora.as_ref().unwrap().starts_with("sudo dnf install"));

    std::os::unix::fs::symlink("/bin/sh", host.directory.join("bin/tcpdump")).unwrap();
    assert_eq!(named(&programs::examine(&host.host), "guest-image").status, Status::Ok);
}

#[test]
fn a_file_that_may_not_be_run_is_no_program() {
    let mut host = fake("mode", &[("bin/dnsmasq", "text")]);
    host.host.path = host.directory.join("bin").into_os_string();
    assert_eq!(named(&programs::examine(&host.host), "dnsmasq").status, Status::Missing);
}

#[test]
fn closed_user_namespaces_are_named_with_the_setting_that_closes_them() {
    let need = |files: &[(&str, &str)]| {
        let host = fake("userns", files);
        let found = privilege::examine(&host.host);
        (
            named(&found, "privilege").status,
            named(&found, "privilege").mend.debian.clone().unwrap_or_default(),
        )
    };
    assert_eq!(need(&[("proc/sys/user/max_user_namespaces", "15000\n")]).0, Status::Ok);
    for (file, value) in [
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        let (status, mend) = need(&[(&format!("proc/sys/{file}"), value)]);
        assert_eq!(status, Status::Missing, "{file}");
        assert!(mend.contains(&file.replace('/', ".")), "{file}: {mend}");
    }
}

#[test]
fn root_needs_no_user_namespaces() {
    let mut host = fake("root", &[("proc/sys/user/max_user_namespaces", "0")]);
    host.host.is_root = true;
    assert_eq!(named(&privilege::examine(&host.host), "privilege").status, Status::Ok);
}

#[test]
fn the_libvirt_driver_and_daemon_are_told_apart() {
    let bare = fake("libvirt", &[]);
    let found = virtualisation::examine(&bare.host);
    assert_eq!(named(&found, "libvirt-qemu-driver").status, Status::Missing);
    assert_eq!(named(&found, "libvirt-daemon").status, Status::Ok, "a daemon is not needed");

    // a socket that nobody listens at
    let dead = fake(
        "libvirt-dead",
        &[("run/libvirt/x", ""), ("usr/lib64/libvirt/connection-driver/libvirt_driver_qemu.so", "")],
    );
    let socket = dead.directory.join("run/libvirt/libvirt-sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let found = virtualisation::examine(&dead.host);
    assert_eq!(named(&found, "libvirt-qemu-driver").status, Status::Ok);
    assert_eq!(named(&found, "libvirt-daemon").status, Status::Warning);
    assert!(named(&found, "libvirt-daemon").detail.contains("/run/libvirt/libvirt-sock"));

    assert_eq!(named(&found, "netloom-libvirt").status, Status::Missing);
    let mut whole = dead.host.clone();
    whole.program = Some(dead.directory.join("netloom"));
    fs::write(dead.directory.join("netloom-libvirt"), "").unwrap();
    assert_eq!(named(&virtualisation::examine(&whole), "netloom-libvirt").status, Status::Ok);

    fs::remove_file(&socket).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(named(&virtualisation::examine(&dead.host), "libvirt-daemon").status, Status::Ok);
}

#[test]
fn bridged_frames_through_the_hosts_rules_are_warned_of() {
    let host = fake("brnf", &[("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")]);
    let found = network::examine(&host.host);
    assert_eq!(named(&found, "br_netfilter").status, Status::Warning);
    assert!(
        named(&found, "br_netfilter")
            .mend
            .debian
            .as_ref()
            .unwrap()
            .contains("net.bridge.bridge-nf-call-iptables=0")
    );
    let host = fake("brnf-off", &[("proc/sys/net/bridge/bridge-nf-call-iptables", "0\n")]);
    assert_eq!(named(&network::examine(&host.host), "br_netfilter").status, Status::Ok);
}

#[test]
fn docker_and_firewalld_are_found_by_what_runs() {
    let files = [("proc/812/comm", "firewalld\n"), ("sys/class/net/docker0/mtu", "1500\n")];
    let host = fake("others", &files);
    let found = network::examine(&host.host);
    assert_eq!(named(&found, "docker").status, Status::Warning);
    assert!(named(&found, "docker").mend.arch.as_ref().unwrap().contains("DOCKER-USER"));
    assert_eq!(named(&found, "firewalld").status, Status::Warning);
    let host = fake("no-others", &[("proc/812/comm", "bash\n")]);
    let found = network::examine(&host.host);
    assert_eq!(named(&found, "docker").status, Status::Ok);
    assert_eq!(named(&found, "firewalld").status, Status::Ok);
}

#[test]
fn chains_that_drop_forwarded_traffic_are_listed_without_our_own() {
    // the shape of `nft -j list chains` (libnftables-json(5))
    let chains = serde_json::json!({"nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 2}},
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 3, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "site", "name": "fwd", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "netloom_lab", "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}
    ]});
    assert_eq!(network::drop_chains(&chains), ["ip filter FORWARD", "inet site fwd"]);
    assert!(network::drop_chains(&serde_json::json!({"nftables": []})).is_empty());
}

#[test]
fn a_refused_feature_is_missing_and_names_its_module() {
    let trial =
        |feature: &str, error: Option<&str>| Trial { feature: feature.into(), error: error.map(Into::into) };
    let found = findings(Some(&[
        trial("network-namespace", None),
        trial("bridge", None),
        trial("veth", None),
        trial("vlan-filtering", Some("the kernel refused: Operation not supported (os error 95)")),
        trial("vlan", Some("the kernel refused: Operation not supported (os error 95)")),
    ]));
    assert_eq!(named(&found, "kernel: bridge").status, Status::Ok);
    assert_eq!(named(&found, "kernel: vlan-filtering").status, Status::Missing);
    assert!(named(&found, "kernel: vlan").mend.fedora.as_ref().unwrap().contains("modprobe 8021q"));
    assert_eq!(named(&found, "kernel: nftables-nat").status, Status::Warning, "not tried is not missing");
    assert!(lacks_something(&findings(None)), "a probe that cannot run is told, not passed over");
}

#[test]
fn a_report_shows_the_mend_for_what_is_not_fine_and_ends_with_a_count() {
    let found = [
        Finding::ok("nft", "rules", "/usr/sbin/nft"),
        Finding::missing("dnsmasq", "DHCP", "not in PATH", Mend::everywhere("do this")),
        Finding::warning("kvm", "speed", "no extension", Mend::everywhere("do that")),
    ];
    let text = render(&found, false);
    for part in [
        "ok       nft",
        "MISSING  dnsmasq",
        "mend: do this",
        "warning  kvm",
        "mend: do that",
        "1 missing, 1 to look at",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert!(!text.contains('\x1b'));
    assert!(render(&found, true).contains('\x1b'));
}

#[test]
fn an_unknown_family_is_shown_every_mend() {
    let mend = Mend::packages("a-deb", "a-rpm", "a-arch");
    let lines = mend.for_family(None).join("\n");
    assert!(["a-deb", "a-rpm", "a-arch"].iter().all(|name| lines.contains(name)), "{lines}");
    assert_eq!(mend.for_family(Some(Family::Arch)), ["sudo pacman -S --needed a-arch"]);
    assert_eq!(Mend::everywhere("x").for_family(None), ["x"]);
}

#[test]
fn json_keeps_its_field_names() {
    let found = Finding::missing("dnsmasq", "DHCP", "not there", Mend::packages("a", "b", "c"));
    let json = serde_json::to_value(&found).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["detail", "mend", "name", "needed_for", "status"]);
    assert_eq!(json["status"], "missing");
    assert_eq!(json["mend"].as_object().unwrap().keys().collect::<Vec<_>>(), ["arch", "debian", "fedora"]);
}

/// What runs here is really tried; `ip` and `bridge`, which are other programs, must agree.
#[test]
fn the_probe_agrees_with_iproute2() {
    if !nix::unistd::geteuid().is_root() {
        // The same test as root of a user namespace.
        let mut again = std::process::Command::new("unshare");
        again.arg("-Urn").arg(std::env::current_exe().unwrap());
        again.args(["--exact", "doctor::tests::the_probe_agrees_with_iproute2"]);
        assert!(again.status().unwrap().success());
        return;
    }
    // A thread has a network of its own after this.
    let trials = std::thread::spawn(probe_kernel).join().unwrap();
    let worked = |feature: &str| trials.iter().find(|t| t.feature == feature).unwrap().error.is_none();
    let judge = |script: &str| {
        let mut judge = std::process::Command::new("unshare");
        judge.args(["-n", "sh", "-ec", script]).stderr(std::process::Stdio::null());
        judge.env("PATH", crate::sandbox::search_path()).status().unwrap().success()
    };
    for (feature, script) in [
        ("bridge", "ip link add x type bridge"),
        ("veth", "ip link add x type veth peer name y"),
        (
            "vlan-filtering",
            "ip link add x type bridge vlan_filtering 1 vlan_default_pvid 0; bridge vlan add dev x vid 7 self",
        ),
        ("vlan", "ip link add x type veth peer name y; ip link add link x name z type vlan id 7"),
        (
            "macvtap",
            "ip link add x type veth peer name y; ip link add link x name z index 1073741801 type macvtap",
        ),
        (
            "nftables-fib",
            "nft add table inet x; nft 'add chain inet x y { type filter hook prerouting priority 0; }'; nft add rule inet x y fib saddr . iif oif missing drop",
        ),
    ] {
        assert_eq!(worked(feature), judge(script), "{feature}: {trials:?}");
    }
    assert!(Path::new("/sys/class/net/plain").symlink_metadata().is_err(), "nothing is left on the host");
}
