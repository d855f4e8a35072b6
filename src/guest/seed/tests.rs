//! The judges are other readers of what a seed holds: the FAT tools, a YAML parser, `ip -batch`.

use super::*;
use crate::guest::config::NicConfig;
use crate::topology::{Addressing, Interface, Mac, Protocol, Route, Service};

fn interface(name: &str, vid: Option<u16>, addressing: Addressing) -> Interface {
    Interface { name: name.into(), reference: name.into(), vid, addressing }
}

fn firewall() -> GuestConfig {
    let nic = |index: u8, interfaces| NicConfig {
        name: format!("eth{index}"),
        mac: Mac([0x52, 0x54, 0, 0, 0, index]),
        mtu: 1500,
        interfaces,
    };
    let fixed = |list: &[&str]| Addressing::Static(list.iter().map(|text| text.parse().unwrap()).collect());
    GuestConfig {
        lab: "lab".into(),
        name: "fw".into(),
        nics: vec![
            nic(0, vec![interface("eth0", None, Addressing::Dynamic { v4: true, v6: false })]),
            nic(
                1,
                vec![
                    interface("eth1", None, Addressing::None),
                    interface("eth1.10", Some(10), fixed(&["10.10.10.1/24", "fd00:10::1/64"])),
                ],
            ),
        ],
        routes: vec![
            Route { to: "10.20.0.0/16".parse().unwrap(), via: "10.10.10.9".parse().unwrap() },
            Route { to: "10.30.0.0/16".parse().unwrap(), via: "10.99.0.9".parse().unwrap() },
        ],
        forwarding: true,
        nameservers: vec!["10.10.10.9".parse().unwrap()],
        ruleset: Some("table inet t {\n}\n".into()),
        dnsmasq: Some("interface=eth1.10\ndhcp-range=10.10.10.100,10.10.10.199,1h\n".into()),
        serve: vec![
            Service { protocol: Protocol::Tcp, port: 80 },
            Service { protocol: Protocol::Icmp, port: 0 },
        ],
    }
}

fn text(config: &GuestConfig, path: &str) -> String {
    files(config).unwrap().into_iter().find(|file| file.path == path).unwrap().text
}

#[test]
fn the_same_configuration_gives_the_same_bytes_at_another_time() {
    let first = volume(&firewall()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2100)); // FAT's clock ticks every two seconds
    assert!(first == volume(&firewall()).unwrap());
    let mut other = firewall();
    other.serve.clear();
    assert!(first != volume(&other).unwrap());
}

#[test]
fn a_volume_holds_its_files_also_when_they_are_large() {
    let mut config = firewall();
    config.ruleset = Some("# a long ruleset\n".repeat(200_000));
    for config in [firewall(), config] {
        let bytes = volume(&config).unwrap();
        let filesystem = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(filesystem.volume_label(), "cidata");
        for file in files(&config).unwrap() {
            let mut read = String::new();
            let mut found = filesystem.root_dir().open_file(&file.path).unwrap();
            std::io::Read::read_to_string(&mut found, &mut read).unwrap();
            assert!(read == file.text, "{}", file.path);
        }
    }
}

#[test]
fn a_route_needs_its_interface_or_waits_for_a_lease() {
    assert!(
        text(&firewall(), "netloom/addresses")
            .contains("route replace 10.20.0.0/16 via 10.10.10.9 dev eth1.10 onlink\n")
    );
    assert_eq!(text(&firewall(), "netloom/routes"), "route replace 10.30.0.0/16 via 10.99.0.9\n");
}

#[test]
fn cloud_init_data_is_yaml_and_says_the_same() {
    let read = |path: &str| -> serde_json::Value { serde_yaml::from_str(&text(&firewall(), path)).unwrap() };
    let network = read("network-config");
    assert_eq!(network["ethernets"]["eth0"]["dhcp4"], true);
    assert_eq!(network["ethernets"]["eth1"]["match"]["macaddress"], "52:54:00:00:00:01");
    assert_eq!(network["vlans"]["eth1.10"]["addresses"][1], "fd00:10::1/64");
    assert_eq!(network["vlans"]["eth1.10"]["routes"][0]["via"], "10.10.10.9");
    assert_eq!(network["ethernets"]["eth0"]["routes"][0]["via"], "10.99.0.9");
    // What is there at once is waited for in the boot; where nothing is, what comes by itself.
    let optional = |kind: &str, name: &str| network[kind][name]["optional"].as_bool().unwrap();
    assert!(optional("ethernets", "eth0") && optional("ethernets", "eth1") && !optional("vlans", "eth1.10"));
    let user = read("user-data");
    let files = user["write_files"].as_array().unwrap();
    let ruleset = files.iter().find(|file| file["path"] == "/etc/netloom/ruleset.nft").unwrap();
    assert_eq!(ruleset["content"], "table inet t {\n}\n");
    assert_eq!(read("meta-data")["local-hostname"], "fw");
}

#[test]
fn a_changed_configuration_is_a_new_instance() {
    let mut other = firewall();
    other.nics[0].mtu = 9000;
    assert_ne!(text(&firewall(), "meta-data"), text(&other, "meta-data"));
}

/// What the script writes is what the host reads.
#[test]
fn the_outcome_is_said_in_words_that_are_understood() {
    let home = std::env::temp_dir().join(format!("netloom-announce-{}", std::process::id()));
    let bin = home.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for tool in ["mkdir", "tr"] {
        // Nothing else, since the host may have an agent.
        std::os::unix::fs::symlink(format!("/usr/bin/{tool}"), bin.join(tool)).unwrap();
    }
    let log = home.join("console");
    let script =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guest/setup.sh")).unwrap();
    let script = script
        .replace("/run/netloom", home.to_str().unwrap())
        .replace("/dev/ttyS0", &format!(">{}", log.display())); // appends
    let said = |state: &str| {
        std::fs::write(home.join("state"), state).unwrap();
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &script, "setup.sh", "announce"])
            .env("PATH", &bin)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        console::progress(&log)
    };
    let without = said("ready\n");
    let failed = said("failed\nthe ruleset was refused: line 3\n nonsense\nnot everything served listens\n");
    let agent = bin.join("qemu-ga");
    std::fs::write(&agent, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let with = said("ready\n");
    std::fs::remove_dir_all(&home).unwrap();
    assert_eq!(without, Some(console::Progress::Ready { agent: false }));
    assert_eq!(with, Some(console::Progress::Ready { agent: true }));
    let reasons = "the ruleset was refused: line 3; nonsense;not everything served listens".to_owned();
    assert_eq!(failed, Some(console::Progress::Failed { reasons }));
}

#[test]
fn the_scripts_are_sound_for_both_shells() {
    for (shell, arguments) in [("dash", vec!["-n"]), ("busybox", vec!["sh", "-n"])] {
        for script in ["src/guest/setup.sh", "src/image/init.sh", "src/image/dhcp.sh", "src/image/agent.sh"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
            let status = std::process::Command::new(shell).args(&arguments).arg(path).status().unwrap();
            assert!(status.success(), "{shell} {script}");
        }
    }
}
