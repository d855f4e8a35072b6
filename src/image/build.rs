//! Builds the image: one directory with `vmlinux` and `initrd`, from a tree of package files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::cpio::Archive;
use super::packages::Tree;
use super::{Manifest, elf, hex, kernel, packages};
use crate::error::{Context, Error, Result};

/// Raised when the builder puts the same inputs together differently.
const BUILDER: &str = "2";
/// Kernel command line. `rootfstype=ramfs`: the default, tmpfs, takes at most half the memory, and a small guest's system
/// is larger. The rest is for a quick start under emulation and not needed to work: no speculation barriers, no
/// zeroing of every page, no calibration of timers against each other, no self-tests of ciphers, no rewriting of the kernel's
/// code for a single processor (a tenth of an emulated boot).
const CMDLINE: &str = "console=ttyS0 quiet rdinit=/init rootfstype=ramfs mitigations=off init_on_alloc=0 tsc=reliable no_timer_check \
                       random.trust_cpu=on cryptomgr.notests noreplace-smp";
/// First program of the guest.
const INIT: &str = include_str!("init.sh");
/// What `udhcpc` calls when a lease changes.
const DHCP: &str = include_str!("dhcp.sh");
/// Starts the agent once the services listen.
const AGENT: &str = include_str!("agent.sh");
/// Answers the power button.
const POWER: &str = include_str!("power.sh");

/// Programs besides busybox. Scripts run in `dash`, since busybox's shell, as Debian builds it, runs its applets in
/// preference to programs of the same name: `ip` would be busybox's. It serves on the console, for its line editing,
/// with aliases against that.
const PROGRAMS: &[&str] =
    &["bridge", "dash", "dnsmasq", "ip", "iperf3", "nft", "ping", "qemu-ga", "socat", "ss", "tcpdump"];
/// Loaded at run time, so no program's headers name it: the C library's thread cancellation.
const LIBRARIES: &[&str] = &["libgcc_s.so.1"];

/// Digest of what comes with netloom itself.
pub(super) fn recipe() -> String {
    let mut hash = Sha256::new();
    for part in [BUILDER, CMDLINE, INIT, DHCP, AGENT, POWER].iter().chain(PROGRAMS) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Resolves the inputs and, unless an image of them is `finished`, builds it below `work`.
///
/// # Errors
/// Exit 3 when the host lacks packages or tools.
pub(super) fn run(
    work: &Path,
    finished: &dyn Fn(&str) -> Option<Manifest>,
    progress: &mut dyn FnMut(&str),
) -> Result<(Manifest, Option<PathBuf>)> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::host("the built-in guest image exists for x86-64 only")
            .hint("give the guests an `image:` of this architecture"));
    }
    progress("resolving packages");
    let (inputs, selection) = if packages::has_apt() {
        let selection = packages::select(work, progress)?;
        (selection.packages.clone(), Some(selection))
    } else {
        (host_inputs()?, None)
    };
    let recipe = recipe();
    let mut hash = Sha256::new_with_prefix(&recipe);
    for input in &inputs {
        hash.update(format!("{input}\n"));
    }
    let digest = hex(&hash.finalize());
    if let Some(manifest) = finished(&digest) {
        return Ok((manifest, None));
    }
    let tree = match selection {
        Some(selection) => selection.fetch(work, progress)?,
        None => Tree::host(),
    };
    progress("assembling kernel and initial RAM disk");
    let image = work.join("image");
    fs::create_dir(&image).context(|| format!("cannot create {}", image.display()))?;
    let (vmlinuz, modules) = tree.kernel()?;
    let kernel = kernel::uncompressed(&tree, &vmlinuz)?;
    save(&image.join("vmlinux"), &kernel)?;
    let archive = initrd(&tree, kernel::modules(&tree, &modules)?)?;
    // Compressed, since archive and unpacked files are in memory together for a moment. lz4 (`-l`: the form the kernel
    // reads) unpacks in a third of zstd's time. Without lz4 the guest needs more memory and works as well.
    let packed =
        tree.filter("lz4", &["-l", "-9", "-c"], archive.clone()).ok().filter(|packed| !packed.is_empty());
    let packed = packed.unwrap_or_else(|| archive.clone());
    save(&image.join("initrd"), &packed)?;
    let memory_mib = memory_mib(&kernel, packed.len() + archive.len());
    let everyone = fs::Permissions::from_mode(0o755); // a system QEMU runs as another user
    fs::set_permissions(&image, everyone).context(|| format!("cannot open up {}", image.display()))?;
    Ok((Manifest { digest, recipe, cmdline: CMDLINE.into(), memory_mib, inputs }, Some(image)))
}

/// Memory without which the image does not start, in MiB, a multiple of 16: the kernel, the initial RAM disk packed and
/// unpacked, and `WORK` for unpacking (8 MiB for lz4) and for what drivers and the kernel's own tables take (measured:
/// 25 MiB with Debian's and Ubuntu's kernels).
fn memory_mib(kernel: &[u8], disk: usize) -> u32 {
    const WORK: u64 = 33 << 20;
    // A kernel that was not unpacked here unpacks itself, to about four times its size.
    let kernel = elf::loaded_size(kernel).unwrap_or(kernel.len() as u64 * 4);
    let bytes = kernel.saturating_add(disk as u64).saturating_add(WORK);
    u32::try_from(bytes.div_ceil(16 << 20) * 16).unwrap_or(u32::MAX)
}

/// On a host without apt the image is made of the host's own files, so their contents decide the digest.
fn host_inputs() -> Result<Vec<String>> {
    let tree = Tree::host();
    let lacking: Vec<&str> =
        PROGRAMS.iter().chain(&["busybox"]).filter(|name| tree.program(name).is_none()).copied().collect();
    if !lacking.is_empty() {
        return Err(Error::host(format!("programs for the guest image are missing: {}", lacking.join(", "))).hint(
            "Fedora: sudo dnf install busybox dash dnsmasq iperf3 iproute iputils nftables qemu-guest-agent socat tcpdump; \
             Arch: sudo pacman -S busybox dash dnsmasq iperf3 iproute2 iputils nftables qemu-guest-agent socat tcpdump",
        ));
    }
    let (kernel, modules) = tree.kernel()?;
    let mut paths: Vec<PathBuf> =
        PROGRAMS.iter().chain(&["busybox"]).filter_map(|name| tree.program(name)).collect();
    paths.extend([kernel, modules.join("modules.dep")]);
    let digest = Tree::digest(&paths)?;
    Ok(vec![format!("host files {digest}"), format!("modules {}", modules.display())])
}

fn save(path: &Path, data: &[u8]) -> Result<()> {
    fs::write(path, data).context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .context(|| format!("cannot open up {}", path.display()))
}

/// The whole system as an archive. One directory of programs and one of libraries, whatever the distribution's layout;
/// the usual names are links to them.
fn initrd(tree: &Tree, modules: kernel::Modules) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for (name, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("usr/sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib"),
    ] {
        archive.link(name, target);
    }
    for directory in
        ["dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/lib", "var/lib/misc"]
    {
        archive.directory(directory);
    }
    archive.link("usr/lib64", "lib");
    archive.link("var/run", "/run");
    archive.link("var/log", "/run");
    archive.link("etc/mtab", "/proc/mounts");
    archive.link("etc/resolv.conf", "/run/resolv.conf");
    archive.device("dev/console", 0o600, 5, 1);
    archive.device("dev/null", 0o666, 1, 3);
    for (path, text) in [
        (
            "etc/passwd",
            "root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\ndnsmasq:x:100:65534:dnsmasq:/:/bin/false\ntcpdump:x:101:101:tcpdump:/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\ntcpdump:x:101:\n"),
        ("etc/protocols", "ip 0\nicmp 1\ntcp 6\nudp 17\nipv6-icmp 58\n"),
        (
            "etc/profile",
            "export PATH=/usr/bin HOME=/root TERM=${TERM:-linux} PS1='\\h:\\w# '\nalias ip=/usr/bin/ip ping=/usr/bin/ping\n",
        ),
    ] {
        archive.file(path, 0o644, text.into());
    }
    archive.file("etc/acpi/PWRF/00000080", 0o755, b"#!/bin/sh\nexec poweroff\n".to_vec());
    archive.file("init", 0o755, INIT.into());
    archive.file("usr/lib/netloom/dhcp", 0o755, DHCP.into());
    archive.file("usr/lib/netloom/agent", 0o755, AGENT.into());
    archive.file("usr/lib/netloom/power", 0o755, POWER.into());
    archive.link("usr/bin/sh", "dash");
    programs(tree, &mut archive)?;
    let home = format!("usr/lib/modules/{}", modules.release);
    for (name, data) in modules.files {
        archive.file(&format!("{home}/{name}"), 0o644, data);
    }
    archive.file(&format!("{home}/modules.dep"), 0o644, modules.dependencies.into_bytes());
    archive.file(&format!("{home}/modules.alias"), 0o644, modules.aliases.into_bytes());
    archive.file(&format!("{home}/modules.symbols"), 0o644, Vec::new());
    Ok(archive.finish())
}

/// Adds the programs with every library they need, then busybox under each of its names that is still free.
fn programs(tree: &Tree, archive: &mut Archive) -> Result<()> {
    let mut libraries: Vec<String> = LIBRARIES.iter().map(|name| (*name).to_owned()).collect();
    for name in PROGRAMS.iter().chain(&["busybox"]) {
        let path = tree.program(name).ok_or_else(|| {
            Error::host(format!("the packages of the guest image hold no program `{name}`"))
        })?;
        let data = read(&path)?;
        libraries.extend(needed(&path, &data)?);
        archive.file(&format!("usr/bin/{name}"), 0o755, data);
    }
    while let Some(name) = libraries.pop() {
        let target = format!("usr/lib/{name}");
        if archive.contains(&target) {
            continue;
        }
        let path = tree.library(&name).ok_or_else(|| {
            Error::host(format!("the packages of the guest image hold no library `{name}`"))
        })?;
        let data = read(&path)?;
        libraries.extend(needed(&path, &data)?);
        archive.file(&target, 0o755, data);
    }
    let busybox = tree.program("busybox").unwrap_or_default();
    let listing = std::process::Command::new(&busybox)
        .arg("--list")
        .output()
        .context(|| format!("cannot run {}", busybox.display()))?;
    for applet in String::from_utf8_lossy(&listing.stdout).lines() {
        let path = format!("usr/bin/{applet}");
        if !archive.contains(&path) && !applet.is_empty() && !applet.contains('/') {
            archive.link(&path, "busybox");
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

fn needed(path: &Path, data: &[u8]) -> Result<Vec<String>> {
    elf::needed(data).map_err(|error| error.context(format!("cannot read {}", path.display())))
}
