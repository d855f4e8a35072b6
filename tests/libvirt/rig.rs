//! What the tests of the libvirt adapter share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use netloom::guest::config::{GuestConfig, NicConfig};
use netloom::guest::seed;
use netloom::host::domains::ObservedDomain;
use netloom::host::labdir;
use netloom::host::libvirt::{Acceleration, Client, Connection, DomainSpec, Kernel, NicSpec};
use netloom::image::{self, BuiltIn};
use netloom::resource::names;
use netloom::topology::{Addressing, Interface};

pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_netloom-libvirt");

pub(crate) fn spec(lab: &str, guest: &str, log: &Path) -> DomainSpec {
    DomainSpec {
        name: names::domain(lab, guest),
        lab: lab.into(),
        guest: guest.into(),
        digest: "0123456789abcdef".into(),
        memory_mib: 64,
        cpus: 1,
        acceleration: Acceleration::Tcg,
        emulator: None,
        kernel: None,
        disk: None,
        seed: None,
        nics: Vec::new(),
        console_log: log.into(),
    }
}

pub(crate) fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {words:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A directory with a short path that goes with the value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/nlv-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("l")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failed test may leave emulators; those of this directory are ours to end.
        for pid in emulators(&self.0) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Process ids of QEMUs whose command line names something below `directory`, from `/proc` alone.
pub(crate) fn emulators(directory: &Path) -> Vec<u32> {
    processes("qemu-system", &format!("{}/", directory.display()))
}

/// Process ids of the workers of an embedded root.
pub(crate) fn workers(root: &Path) -> Vec<u32> {
    processes(WORKER, &format!("qemu:///embed?root={}\0", root.display()))
}

fn processes(program: &str, argument: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words).into_owned();
        if words.split('\0').next().unwrap_or_default().contains(program) && words.contains(argument) {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap()).replace('\0', " ")
}

/// Runs `work` in a network namespace of its own, on a thread of its own.
pub(crate) fn in_own_network<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        run("ip", &["link", "set", "lo", "up"]);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) async fn open(root: &Path) -> Client {
    let connection = Connection::embedded(root).unwrap();
    Client::spawn_program(Path::new(WORKER), &connection, false).await.unwrap()
}

pub(crate) fn nic(tap: &str, last: u8) -> NicSpec {
    NicSpec { mac: format!("52:54:00:00:00:{last:02x}").parse().unwrap(), tap: tap.into(), mtu: 1500 }
}

pub(crate) fn names_of(domains: &[ObservedDomain]) -> Vec<&str> {
    domains.iter().map(|domain| domain.name.as_str()).collect()
}

/// The built-in image, from the cache that netloom itself uses.
pub(crate) fn built_in() -> &'static BuiltIn {
    static IMAGE: OnceLock<BuiltIn> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let cache = labdir::state_directory().unwrap().join("images");
        image::built_in(&cache, &mut |step| eprintln!("{step}")).unwrap()
    })
}

/// A guest of the built-in image with one NIC on `tap` and one address.
pub(crate) fn guest(name: &str, directory: &Path, tap: &str, address: &str) -> DomainSpec {
    let nic = nic(tap, 1);
    let addressing = Addressing::Static(vec![address.parse().unwrap()]);
    let interface = Interface { name: "eth0".into(), reference: "net".into(), vid: None, addressing };
    let config = GuestConfig {
        lab: "lab".into(),
        name: name.into(),
        nics: vec![NicConfig {
            name: "eth0".into(),
            mac: nic.mac,
            mtu: nic.mtu,
            interfaces: vec![interface],
        }],
        routes: vec![],
        forwarding: false,
        nameservers: vec![],
        ruleset: None,
        dnsmasq: None,
        serve: vec![],
    };
    let path = directory.join("seed.img");
    seed::write(&path, &config).unwrap();
    let image = built_in();
    DomainSpec {
        memory_mib: 128,
        kernel: Some(Kernel {
            kernel: image.kernel.clone(),
            initrd: Some(image.initrd.clone()),
            cmdline: image.cmdline.clone(),
        }),
        seed: Some(path),
        nics: vec![nic],
        ..spec("lab", name, &directory.join("console.log"))
    }
}
