//! Whole guests: booted from the built-in image, asked through the agent, seen on their console and on the network.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netloom::host::agent;
use netloom::host::domains::Domains;
use netloom::host::libvirt::{Client, Connection, DomainSpec, NicSpec, choose, domain_xml};

use crate::rig::{Scratch, WORKER, built_in, emulators, guest, in_own_network, nic, open, run, spec};

#[test]
fn a_guest_boots_answers_runs_commands_and_logs_its_console() {
    built_in(); // may have to fetch packages, which the network namespace cannot
    in_own_network(|| async {
        let scratch = Scratch::new();
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["addr", "add", "10.9.0.1/24", "dev", "br0"]);
        run("ip", &["tuntap", "add", "nlt0", "mode", "tap", "vnet_hdr"]);
        run("ip", &["link", "set", "nlt0", "master", "br0", "up"]);
        run("ip", &["link", "set", "br0", "up"]);
        let spec = guest("pc", &scratch.0, "nlt0", "10.9.0.2/24");
        let client = open(&scratch.root()).await;

        let began = Instant::now();
        client.create(&domain_xml(&spec).unwrap()).await.unwrap();
        let created = began.elapsed();
        let said = std::cell::RefCell::new(Vec::new());
        agent::wait_ready(&client, "lab-pc", Duration::from_secs(300), Some(&spec.console_log), |line| {
            said.borrow_mut().push(line.to_owned());
        })
        .await
        .unwrap();
        eprintln!("created after {created:?}, ready after {:?}; {said:?}", began.elapsed());
        run("ping", &["-c", "1", "-W", "5", "10.9.0.2"]);

        let argv = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let second = Duration::from_secs(20);
        let words = argv(&["sh", "-c", "cat; echo err >&2; exit 3"]);
        let outcome = agent::exec(&client, "lab-pc", &words, Some(b"through\0"), second).await.unwrap();
        assert_eq!((outcome.status, outcome.stdout.as_slice()), (3, b"through\0".as_slice()));
        assert_eq!(outcome.stderr, b"err\n");
        // A timer that ticks on in the emulator when the guest has long ceased to use it.
        let words = argv(&["cat", "/sys/devices/system/clocksource/clocksource0/available_clocksource"]);
        let clocks = agent::exec(&client, "lab-pc", &words, None, second).await.unwrap().stdout;
        let clocks = String::from_utf8(clocks).unwrap();
        assert!(clocks.contains("acpi_pm") && !clocks.contains("hpet"), "{clocks}");
        let error = agent::exec(&client, "lab-pc", &argv(&["no-such"]), None, second).await.unwrap_err();
        assert!(error.to_string().contains("`no-such`"), "{error}");
        let late = Duration::from_millis(300);
        let error = agent::exec(&client, "lab-pc", &argv(&["sleep", "99"]), None, late).await.unwrap_err();
        assert!(error.to_string().contains("not done"), "{error}");
        let left = argv(&[
            "sh",
            "-c",
            "for i in 1 2 3 4 5 6 7 8 9; do pidof sleep || exit 0; sleep 0.1; done; exit 1",
        ]);
        assert_eq!(agent::exec(&client, "lab-pc", &left, None, second).await.unwrap().status, 0);

        let found = agent::addresses(&client, "lab-pc").await.unwrap();
        let eth0 = found.iter().find(|interface| interface.name == "eth0").unwrap();
        assert_eq!(eth0.mac, Some(spec.nics[0].mac));
        assert!(eth0.addresses.contains(&"10.9.0.2/24".parse().unwrap()), "{eth0:?}");

        // What is typed on the pty reaches the guest, and what the guest writes is on the pty and in the log.
        let pty = client.list().await.unwrap()[0].console.clone().unwrap();
        let mut console =
            fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(pty).unwrap();
        let words = argv(&["sh", "-c", "echo from-the-guest >/dev/ttyS0"]);
        agent::exec(&client, "lab-pc", &words, None, second).await.unwrap();
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains("from-the-guest") {
            let count = console.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        console.write_all(b"\r").unwrap();
        assert!(fs::read_to_string(&spec.console_log).unwrap().contains("from-the-guest"));

        client.remove("lab-pc").await.unwrap();
        client.close().await.unwrap();
        assert_eq!(emulators(&scratch.0), Vec::<u32>::new());
    });
}

/// An ordinary user, with nothing but user namespaces: the whole of `scripts` in tests of this kind would be a sandbox,
/// which is tested elsewhere; here only what libvirt needs of one.
#[test]
fn an_ordinary_user_in_a_user_namespace_has_domains_too() {
    let scratch = Scratch::new();
    let user = "65533";
    let home = scratch.0.join("home");
    fs::create_dir(&home).unwrap();
    run("chown", &[user, scratch.0.to_str().unwrap(), home.to_str().unwrap()]);
    let own = std::env::current_exe().unwrap();
    // This machine may close /dev/net/tun to users: the test has a node of its own.
    let script = format!(
        "set -e; mknod {0}/tun c 10 200; chmod 666 {0}/tun; mount --bind {0}/tun /dev/net/tun; \
         exec setpriv --reuid {user} --regid {user} --clear-groups env HOME={0}/home NETLOOM_STATE_DIR={0}/s \
         unshare -Urn {1} --exact guest::inside_a_user_namespace --ignored --nocapture",
        scratch.0.display(),
        own.display(),
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .env("NETLOOM_TEST_ROOT", scratch.root())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(emulators(&scratch.0), Vec::<u32>::new());
    assert_eq!(fs::read_dir(home).unwrap().count(), 0); // nothing of libvirt's stays in the user's home
}

/// The inner half of the test above; it does nothing on its own.
#[test]
#[ignore = "run by an_ordinary_user_in_a_user_namespace_has_domains_too"]
fn inside_a_user_namespace() {
    let Some(root) = std::env::var_os("NETLOOM_TEST_ROOT").map(std::path::PathBuf::from) else { return };
    let work = async {
        assert!(nix::unistd::geteuid().is_root() && !may_be_another());
        run("ip", &["tuntap", "add", "nlt0", "mode", "tap", "vnet_hdr", "user", "0"]);
        let mut spec = spec("lab", "pc", &root.with_file_name("pc.log"));
        spec.nics = vec![NicSpec { mtu: 1400, ..nic("nlt0", 1) }];
        let connection = Connection::embedded(&root).unwrap();
        let program = Path::new(WORKER);
        let client = Client::spawn_program(program, &connection, true).await.unwrap();
        client.create(&domain_xml(&spec).unwrap()).await.unwrap();
        let before = client.list().await.unwrap();
        assert!(before[0].running && before[0].console.is_some());
        assert_eq!(emulators(root.parent().unwrap()), [before[0].pid.unwrap()]);
        client.close().await.unwrap();
        let client = Client::spawn_program(program, &connection, true).await.unwrap();
        assert_eq!(client.list().await.unwrap(), before);
        client.remove("lab-pc").await.unwrap();
        client.close().await.unwrap();
        assert!(!root.exists());
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// Whether this user namespace has more than one user, as a privileged one has.
fn may_be_another() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_ascii_whitespace().last() != Some("1")
}

/// A system daemon of the test's own: libvirtd with all its directories in a mount namespace, and in a network
/// namespace.
#[test]
fn a_system_daemon_is_found_and_shows_our_domains() {
    // A /dev/kvm that root may open and QEMU's user may not makes libvirt probe QEMU again at each call: it gets one that
    // both may open, as on an ordinary host.
    let script = "set -e; cd $TEST_DIRECTORY; mkdir etc; cp -a /etc/libvirt/. etc; mount --bind etc /etc/libvirt; \
         if [ -e /dev/kvm ]; then mknod kvm c 10 232; chmod 666 kvm; mount --bind kvm /dev/kvm; fi; \
         for d in /run /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do mount -t tmpfs t $d; done; \
         mkdir -p /run/libvirt /var/cache/libvirt/qemu; chmod 755 /run /var/lib/libvirt; ip link set lo up; \
         virtlogd -d -p /run/virtlogd.pid; libvirtd -d -p /run/libvirtd.pid; \
         set +e; $TEST_PROGRAM --exact guest::beside_a_system_daemon --ignored --nocapture; status=$?; \
         kill $(cat /run/libvirtd.pid) $(cat /run/virtlogd.pid); exit $status";
    let scratch = Scratch::new();
    let output = Command::new("unshare")
        .args(["-mn", "--propagation", "private", "sh", "-c", script])
        .env("TEST_DIRECTORY", &scratch.0)
        .env("TEST_PROGRAM", std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(emulators(&scratch.0), Vec::<u32>::new());
}

/// The inner half of the test above; it does nothing on its own.
#[test]
#[ignore = "run by a_system_daemon_is_found_and_shows_our_domains"]
fn beside_a_system_daemon() {
    let Some(directory) = std::env::var_os("TEST_DIRECTORY").map(std::path::PathBuf::from) else { return };
    let work = async {
        let connection = choose(None, &directory.join("l"), false).unwrap();
        assert_eq!(connection, Connection::Daemon("qemu:///system".into()));
        run("ip", &["tuntap", "add", "nlt0", "mode", "tap", "vnet_hdr"]);
        // A macvtap is opened by its device, /dev/tap and its index, which all namespaces share.
        let index = (1_u32 << 30) + std::process::id() % 10_000_000;
        let text = index.to_string();
        run("ip", &["link", "add", "nlu0", "type", "veth", "peer", "name", "nlu1"]);
        run("ip", &["link", "add", "link", "nlu0", "name", "nlm0", "index", &text, "type", "macvtap"]);
        let (disk, seed) = (directory.join("disk.qcow2"), directory.join("seed.img"));
        run("qemu-img", &["create", "-q", "-f", "qcow2", disk.to_str().unwrap(), "8M"]);
        fs::write(&seed, [0; 4096]).unwrap();
        let console = directory.join("console.log");
        let spec = DomainSpec {
            disk: Some(disk),
            seed: Some(seed),
            nics: vec![nic("nlt0", 1), nic("nlm0", 2)],
            ..spec("lab", "pc", &console)
        };

        let client = Client::spawn_program(Path::new(WORKER), &connection, false).await.unwrap();
        client.create(&domain_xml(&spec).unwrap()).await.unwrap();
        let found = client.list().await.unwrap();
        assert_eq!(found[0].pid.map(|pid| vec![pid]), Some(emulators(&directory)));
        let open = fs::read_dir(format!("/proc/{}/fd", emulators(&directory)[0])).unwrap();
        let mut files = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        assert!(files.any(|file| file == Path::new(&format!("/dev/tap{index}"))));
        // What virsh, and so virt-manager, sees.
        let virsh = |words: &[&str]| run("virsh", &[&["-q", "-c", "qemu:///system"], words].concat());
        assert!(virsh(&["list"]).contains("lab-pc"));
        assert_eq!(Some(virsh(&["ttyconsole", "lab-pc"]).trim()), found[0].console.as_deref());
        assert!(virsh(&["metadata", "lab-pc", "https://netloom.dev/ns/1"]).contains("guest=\"pc\""));
        assert!(
            virsh(&["dominfo", "lab-pc"])
                .lines()
                .any(|line| line.starts_with("Autostart:") && line.ends_with("disable"))
        );
        assert!(console.exists());
        client.remove("lab-pc").await.unwrap();
        assert_eq!(virsh(&["list", "--all"]).trim(), "");
        client.close().await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}
