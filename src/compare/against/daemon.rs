//! A libvirt daemon of the sandbox's own. Its files are in file systems of the sandbox's memory, its sockets in the
//! sandbox's `/run`; process 1 of the sandbox is its parent. All of it goes with the sandbox.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::system::{self, System, is_installed};
use crate::error::{Context, Error, Result};
use crate::host::libvirt::copy_capabilities;
use crate::sandbox;

/// The daemon's URI, inside the sandbox.
pub const URI: &str = "qemu:///system";

/// Where libvirt keeps what would outlive the sandbox.
const DIRECTORIES: [&str; 4] = ["/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"];
/// What it expects there.
const INNER: [&str; 6] = [
    CAPABILITIES,
    "/etc/libvirt/qemu/networks",
    "/var/lib/libvirt/dnsmasq",
    "/var/lib/libvirt/qemu",
    "/var/log/libvirt/qemu",
    "/run/libvirt",
];
/// The device of hardware virtualisation.
const KVM: &str = "/dev/kvm";
/// Daemons in the order of their start.
const DAEMONS: [&str; 2] = ["virtlogd", "libvirtd"];
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Programs without which there is nothing real, with what each is for and the packages of Debian and Fedora.
const PROGRAMS: [(&str, &str, [&str; 2]); 5] = [
    ("libvirtd", "the daemon", ["libvirt-daemon", "libvirt-daemon"]),
    ("virtlogd", "consoles of domains", ["libvirt-daemon-log", "libvirt-daemon-log"]),
    ("virsh", "networks are defined by it", ["libvirt-clients", "libvirt-client"]),
    ("dnsmasq", "DHCP of networks", ["dnsmasq-base", "dnsmasq"]),
    ("iptables", "the firewall of networks", ["iptables", "iptables-nft"]),
];
/// The file of libvirt's network driver, whose directory depends on the distribution.
const DRIVER: &str = "libvirt/connection-driver/libvirt_driver_network.so";
/// Where distributions keep libraries.
const LIBRARIES: [&str; 3] = ["/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// Refuses a host on which it could not run.
///
/// # Errors
/// Exit 3 naming what is missing.
pub(super) fn is_possible() -> Result<()> {
    for (program, need, packages) in PROGRAMS {
        if !is_installed(program) {
            return Err(System::Libvirt.missing(&format!("{program} ({need})"), packages));
        }
    }
    if !driver_is_installed() {
        let packages = ["libvirt-daemon-driver-network", "libvirt-daemon-driver-network"];
        return Err(System::Libvirt.missing("libvirt's network driver", packages));
    }
    Ok(())
}

/// In a library directory, or in one for this architecture below it.
fn driver_is_installed() -> bool {
    let below = |library: &str| {
        let inner = fs::read_dir(library).into_iter().flatten().flatten().map(|entry| entry.path());
        inner.chain([library.into()]).any(|directory| directory.join(DRIVER).is_file())
    };
    LIBRARIES.into_iter().any(below)
}

/// Where it keeps what QEMU has told of itself.
const CAPABILITIES: &str = "/var/cache/libvirt/qemu/capabilities";

/// Keeps what it has learnt of QEMU in a directory, for the daemons of later sandboxes: asking takes seconds.
pub fn keep_capabilities(cache: &Path) {
    if fs::create_dir_all(cache).is_ok() {
        copy_capabilities(Path::new(CAPABILITIES), cache);
    }
}

/// Starts it and waits until it answers; `cache` holds what an earlier one has learnt of QEMU, if anything. To be called
/// inside the sandbox.
///
/// # Errors
/// When it does not start.
pub fn start(cache: &Path) -> Result<()> {
    if !sandbox::inside() {
        return Err(Error::failed("a libvirt daemon of one's own is for sandboxes only"));
    }
    for directory in DIRECTORIES {
        let failed = || format!("cannot mount a private {directory}");
        if !Path::new(directory).exists() {
            return Err(System::Libvirt.missing(directory, ["libvirt-daemon", "libvirt-daemon"]));
        }
        mount(Some("netloom"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .context(failed)?;
    }
    for directory in INNER {
        fs::create_dir_all(directory).context(|| format!("cannot create {directory}"))?;
    }
    copy_capabilities(cache, Path::new(CAPABILITIES));
    for (file, text) in FILES {
        fs::write(file, text).context(|| format!("cannot write {file}"))?;
    }
    open_kvm()?;
    for daemon in DAEMONS {
        run(daemon, &["-d", "-p", &format!("/run/{daemon}.pid")])?;
    }
    let began = Instant::now();
    while let Err(silence) = virsh(&["net-list"]) {
        if began.elapsed() > PATIENCE {
            return Err(silence);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Lets everybody open /dev/kvm in this mount namespace, whose `/var/lib/libvirt` is its own. libvirt has root ask QEMU what it can, and then looks whether its own user
/// may open the device. Where that is root's alone the two never agree, and it asks again at each turn, dozens of times for
/// one domain.
///
/// # Errors
/// When the device cannot be made or mounted.
pub fn open_kvm() -> Result<()> {
    let Ok(device) = fs::metadata(KVM) else { return Ok(()) };
    if device.permissions().mode() & 0o006 == 0o006 {
        return Ok(());
    }
    let failed = || format!("cannot open {KVM} to libvirt's user");
    let node = Path::new("/var/lib/libvirt/kvm");
    mknod(node, SFlag::S_IFCHR, Mode::empty(), device.rdev()).context(failed)?;
    fs::set_permissions(node, fs::Permissions::from_mode(0o666)).context(failed)?;
    mount(Some(node), KVM, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(failed)
}

/// Its configuration, and one setting of the kernel.
const FILES: [(&str, &str); 4] = [
    // Root alone reaches the socket's directory.
    ("/etc/libvirt/libvirtd.conf", "auth_unix_rw = \"none\"\nunix_sock_group = \"root\"\n"),
    // The other backend needs more of the kernel.
    ("/etc/libvirt/network.conf", "firewall_backend = \"iptables\"\n"),
    // cgroups and security labels are not the sandbox's.
    ("/etc/libvirt/qemu.conf", "namespaces = []\nsecurity_driver = \"none\"\ncgroup_controllers = []\n"),
    // Everybody may ping without privilege, as systemd sets it everywhere: slirp and passt do it in a user's name.
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647\n"),
];

/// Has virsh ask the daemon.
///
/// # Errors
/// With what libvirt says.
pub fn virsh(arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["-q", "-c", URI].iter().chain(arguments).copied().collect();
    run("virsh", &all)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let words = arguments.iter().copied().filter(|word| !["-q", "-c", URI].contains(word));
    system::run(command, &std::iter::once(program).chain(words).collect::<Vec<_>>())
}
