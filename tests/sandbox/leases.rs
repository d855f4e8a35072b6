//! The DHCP client's hook against a real server and the real client. `ip` is the judge.

use std::fs;

use netloom::lease;

use crate::cases::{Case, plug_guest_into_lan};
use crate::rig::{Rig, eventually};

pub(crate) const ALL: &[Case] = &[
    ("a_lease_is_put_on_renewed_and_given_back", a_lease_is_put_on_renewed_and_given_back),
    ("a_changed_lease_replaces_the_old_one", a_changed_lease_replaces_the_old_one),
];

/// IPv4 addresses of the guest: address with prefix length, and seconds they are valid for (`None`: for ever).
fn addresses(rig: &Rig) -> Vec<(String, Option<u64>)> {
    let seen = rig.json("one", &["ip", "-n", "guest", "-j", "-4", "addr", "show", "eth0"]);
    let Some(list) = seen[0]["addr_info"].as_array() else { return Vec::new() };
    list.iter()
        .map(|a| {
            let left = a["valid_life_time"].as_u64().filter(|left| *left != u64::from(u32::MAX));
            (format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]), left)
        })
        .collect()
}

fn routes(rig: &Rig) -> String {
    rig.run("one", &["ip", "-n", "guest", "-4", "route", "show", "proto", "dhcp"])
}

/// Writes the hook into a directory and returns the client's command line for it.
fn client(rig: &Rig) -> (std::path::PathBuf, Vec<String>) {
    use std::os::unix::fs::PermissionsExt;
    let home = rig.state.join("client");
    fs::create_dir_all(&home).unwrap();
    let command = rig.command(&[]);
    let words: Vec<&std::ffi::OsStr> =
        std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let program = std::path::Path::new(words.last().unwrap());
    fs::write(home.join(lease::HOOK_FILE), lease::hook_script(program)).unwrap();
    fs::set_permissions(home.join(lease::HOOK_FILE), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    let argv = lease::udhcpc_argv("eth0", "pc")
        .into_iter()
        .map(|argument| argument.replace("{dir}", home.to_str().unwrap()))
        .collect();
    (home, argv)
}

fn a_lease_is_put_on_renewed_and_given_back() {
    let rig = Rig::unprivileged("lease");
    rig.create("one");
    plug_guest_into_lan(&rig, "one");
    rig.run("one", &["ip", "-n", "guest", "addr", "add", "10.9.9.9/32", "dev", "eth0"]);
    let (home, argv) = client(&rig);
    let mut command = vec!["__enter", "one", "ip", "netns", "exec", "guest"];
    command.extend(argv.iter().map(String::as_str));
    let mut child = rig.command(&command).spawn().unwrap();
    let record = home.join(lease::RECORD_FILE);
    eventually("there is a lease", || lease::read(&record).is_some());
    let got = lease::read(&record).unwrap();
    assert!(!lease::awaited(&record, &[got.address]) && lease::awaited(&record, &[]));
    assert_eq!((got.interface.as_str(), got.lease_seconds), ("eth0", 600));
    assert_eq!(got.server.unwrap().to_string(), "192.0.2.1");
    let seen = addresses(&rig);
    assert_eq!(seen[0], ("10.9.9.9/32".into(), None), "the static address stays");
    assert_eq!(seen[1].0, got.address.to_string());
    assert!(
        seen[1].1.is_some_and(|left| (500..=600).contains(&left)),
        "lives as long as the lease: {seen:?}"
    );
    assert!(routes(&rig).contains("default via 192.0.2.1 dev eth0"), "{}", routes(&rig));
    rig.run("one", &["ip", "netns", "exec", "guest", "ping", "-n", "-c1", "-W2", "198.51.100.10"]);
    let leases = rig.run("one", &["cat", "/run/world/leases"]);
    assert!(leases.contains(" pc "), "the server knows the guest's name: {leases}");
    // Renewed on request: recorded anew, still one address.
    let obtained = got.obtained;
    eventually("the lease is renewed", || {
        rig.run("one", &["pkill", "-USR1", "-f", "^busybox udhcpc"]);
        std::thread::sleep(std::time::Duration::from_millis(300));
        lease::read(&record).is_some_and(|lease| lease.obtained > obtained)
    });
    assert_eq!(addresses(&rig).len(), 2);
    // Ended, it gives the lease back, and only that.
    rig.run("one", &["pkill", "-TERM", "-f", "^busybox udhcpc"]);
    child.wait().unwrap();
    assert_eq!(addresses(&rig), [("10.9.9.9/32".into(), None)]);
    assert_eq!(routes(&rig), "");
    assert!(lease::awaited(&record, &[got.address]) && lease::read(&record).is_none());
}

fn a_changed_lease_replaces_the_old_one() {
    let rig = Rig::new("change");
    rig.create("one");
    plug_guest_into_lan(&rig, "one");
    let (home, _) = client(&rig);
    let hook = |event: &str, settings: &[&str]| {
        let script = home.join(lease::HOOK_FILE);
        let mut command = vec!["ip", "netns", "exec", "guest", "env", "interface=eth0"];
        command.extend(settings);
        command.extend([script.to_str().unwrap(), event]);
        rig.run("one", &command);
    };
    let first = ["ip=192.0.2.150", "mask=24", "subnet=255.255.255.0", "router=192.0.2.1", "lease=60"];
    hook("bound", &first);
    hook("renew", &["ip=192.0.2.150", "mask=24", "router=192.0.2.1", "lease=90"]);
    let seen = addresses(&rig);
    assert!(seen.len() == 1 && seen[0].1.is_some_and(|left| left > 60), "{seen:?}");
    // Another address of the same subnet, another router, a classless route.
    hook("bound", &["ip=192.0.2.151", "mask=24", "router=192.0.2.20", "lease=4294967295"]);
    let seen = addresses(&rig);
    assert!(seen.len() == 1 && seen[0].0 == "192.0.2.151/24", "{seen:?}");
    assert!(seen[0].1.is_some(), "an endless lease is still no permanent address: {seen:?}");
    assert!(
        routes(&rig).contains("default via 192.0.2.20") && routes(&rig).lines().count() == 1,
        "{}",
        routes(&rig)
    );
    hook(
        "renew",
        &["ip=192.0.2.151", "mask=24", "router=192.0.2.20", "lease=60", "staticroutes=10.7.0.0/16 192.0.2.1"],
    );
    assert!(
        routes(&rig).starts_with("10.7.0.0/16 via 192.0.2.1") && routes(&rig).lines().count() == 1,
        "{}",
        routes(&rig)
    );
    // A next hop that no address of the link reaches: the lease counts all the same.
    let record = home.join(lease::RECORD_FILE);
    let odd = "interface=eth0 ip=192.0.2.152 mask=24 lease=60 staticroutes='10.7.0.0/16 203.0.113.9'";
    let hook_file = home.join(lease::HOOK_FILE).display().to_string();
    let refused = format!("! ip netns exec guest env {odd} {hook_file} bound");
    rig.run("one", &["sh", "-ec", &refused]);
    let address = "192.0.2.152/24";
    assert_eq!(addresses(&rig)[0].0, address);
    assert!(!lease::awaited(&record, &[address.parse().unwrap()]));
    hook("leasefail", &[]);
    assert_eq!(addresses(&rig).len(), 1);
    hook("deconfig", &[]);
    assert_eq!(addresses(&rig), []);
    assert_eq!(routes(&rig), "");
    hook("deconfig", &[]);
}
