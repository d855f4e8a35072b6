//! Where the built-in image's files come from: distribution packages, downloaded and unpacked without installing them,
//! so that building needs no privilege and leaves the host as it was; else the programs installed on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::hex;
use crate::error::{Context, Error, Result};

/// Packages whose programs the image carries. `lz4`, `xz-utils` and `zstd` serve to unpack kernels and modules.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "dash",
    "dnsmasq-base",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "lz4",
    "nftables",
    "qemu-guest-agent",
    "socat",
    "tcpdump",
    "xz-utils",
    "zstd",
];
/// Kernel packages, the smallest first: Debian's and Ubuntu's for virtual machines, then their general ones.
const KERNELS: &[&str] =
    &["linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic"];

/// A file tree with programs, libraries and one kernel.
pub(super) struct Tree {
    root: PathBuf,
    /// Whether the tree is a distribution's own, apart from the host.
    private: bool,
}

/// Packages as `apt-get` resolved them.
pub(super) struct Selection {
    /// `name_version_arch`, sorted: what the image is made of.
    pub(super) packages: Vec<String>,
    apt_options: Vec<String>,
}

/// Whether this host can download packages without installing them.
pub(super) fn has_apt() -> bool {
    ["apt-get", "dpkg-deb"].iter().all(|tool| find_in_path(tool).is_some())
}

/// Asks `apt-get` which packages, and which of their libraries, make up the image. `work` is for its own use; package
/// lists are fetched into it when the host has none.
pub(super) fn select(work: &Path, progress: &mut dyn FnMut(&str)) -> Result<Selection> {
    let status = work.join("status");
    fs::write(&status, "").context(|| format!("cannot write {}", status.display()))?;
    let mut options = vec![format!("Dir::State::Status={}", status.display()), "Debug::NoLocking=1".into()];
    if nix::unistd::geteuid().is_root() {
        options.push("APT::Sandbox::User=root".into()); // the work directory is root's alone
    }
    if let Ok(packages) = resolve(&options) {
        return Ok(Selection { packages, apt_options: options });
    }
    progress("fetching package lists (this host's own are missing or too old)");
    for (name, below) in [("State", "state/lists/partial"), ("Cache", "cache/archives/partial")] {
        let path = work.join(below);
        fs::create_dir_all(&path).context(|| format!("cannot create {}", path.display()))?;
        options.push(format!("Dir::{name}={}", work.join(name.to_lowercase()).display()));
    }
    let update =
        apt("apt-get", &options, &["-q", "update"]).output().context(|| "cannot run apt-get".into())?;
    let packages = resolve(&options).map_err(|error| {
        error
            .caused_by(tail(&update.stderr))
            .hint("check that /etc/apt/sources.list.d names a reachable mirror, then run `apt-get update`")
    })?;
    Ok(Selection { packages, apt_options: options })
}

/// Resolves the packages against an empty system. Only programs asked for, kernels and libraries are kept: what else a
/// package depends on serves its installation.
fn resolve(options: &[String]) -> Result<Vec<String>> {
    let policy = apt("apt-cache", options, &["policy"]).args(KERNELS).output();
    let policy =
        String::from_utf8_lossy(&policy.context(|| "cannot run apt-cache".into())?.stdout).into_owned();
    let known = |kernel: &&&str| {
        policy.split_once(&format!("{kernel}:\n")).is_some_and(|(_, rest)| {
            let candidate = rest.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
            candidate.is_some_and(|version| version != "(none)")
        })
    };
    let kernel = KERNELS
        .iter()
        .find(known)
        .ok_or_else(|| Error::host(format!("no package source offers a kernel ({})", KERNELS.join(", "))))?;
    let output =
        apt("apt-get", options, &["-y", "--no-install-recommends", "--print-uris", "install", kernel])
            .args(PACKAGES)
            .output()
            .context(|| "cannot run apt-get".into())?;
    if !output.status.success() {
        return Err(Error::host("the package sources lack a package of the guest image")
            .caused_by(tail(&output.stderr)));
    }
    let mut packages: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_whitespace().nth(1)?.strip_suffix(".deb"))
        .filter(|package| belongs(package))
        .map(|package| package.replace("%3a", ":"))
        .collect();
    packages.sort();
    Ok(packages)
}

/// Whether a resolved package (`name_version_arch`) is part of the image.
fn belongs(package: &str) -> bool {
    let name = package.split('_').next().unwrap_or_default();
    let kernel =
        ["linux-image-", "linux-modules-", "linux-binary-"].iter().any(|prefix| name.starts_with(prefix));
    !package.ends_with("_all")
        && (PACKAGES.contains(&name)
            || kernel
            || name == "zlib1g"
            || (name.starts_with("lib") && !name.ends_with("-perl")))
}

impl Selection {
    /// Downloads (apt verifies signatures and checksums) and unpacks the packages below `work`.
    pub(super) fn fetch(&self, work: &Path, progress: &mut dyn FnMut(&str)) -> Result<Tree> {
        let (archives, root) = (work.join("archives"), work.join("root"));
        for path in [&archives, &root] {
            fs::create_dir_all(path).context(|| format!("cannot create {}", path.display()))?;
        }
        progress(&format!("downloading {} packages", self.packages.len()));
        let wanted = self.packages.iter().filter_map(|package| {
            let (name, rest) = package.split_once('_')?;
            let (version, arch) = rest.rsplit_once('_')?;
            Some(format!("{name}:{arch}={version}"))
        });
        let output = apt("apt-get", &self.apt_options, &["-q", "download"])
            .args(wanted)
            .current_dir(&archives)
            .output()
            .context(|| "cannot run apt-get".into())?;
        if !output.status.success() {
            return Err(Error::host("cannot download the guest image's packages")
                .caused_by(tail(&output.stderr))
                .hint(
                    "check the network, then run `apt-get update`: old lists name packages that are gone",
                ));
        }
        progress("unpacking");
        let listing = fs::read_dir(&archives).context(|| format!("cannot list {}", archives.display()))?;
        let mut files: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            run(
                Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root),
                &format!("unpack {}", file.display()),
            )?;
        }
        Ok(Tree { root, private: true })
    }
}

impl Tree {
    /// The host itself, for distributions without apt.
    pub(super) fn host() -> Tree {
        Tree { root: "/".into(), private: false }
    }

    /// Whether this is the host itself.
    pub(super) fn is_host(&self) -> bool {
        !self.private
    }

    /// A program by name.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let places = ["usr/bin", "usr/sbin", "bin", "sbin", "usr/libexec"];
        places.iter().map(|place| self.root.join(place).join(name)).find(|path| path.is_file())
    }

    /// A library by the file name that programs ask for.
    pub(super) fn library(&self, name: &str) -> Option<PathBuf> {
        self.library_directories().into_iter().map(|place| place.join(name)).find(|path| path.is_file())
    }

    fn library_directories(&self) -> Vec<PathBuf> {
        let places =
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib", "lib"];
        let mut found: Vec<PathBuf> = places.iter().map(|place| self.root.join(place)).collect();
        // Debian keeps libsystemd's private library in a directory of its own.
        found.push(self.root.join("usr/lib/x86_64-linux-gnu/systemd"));
        found
    }

    /// The kernel image and its modules' directory.
    pub(super) fn kernel(&self) -> Result<(PathBuf, PathBuf)> {
        let wanted = if self.is_host() {
            let running =
                nix::sys::utsname::uname().context(|| "cannot ask for the running kernel".into())?;
            Some(running.release().to_string_lossy().into_owned())
        } else {
            None
        };
        let places = ["usr/lib/modules", "lib/modules"].map(|place| self.root.join(place));
        for modules in places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten() {
            let release = modules.file_name().to_string_lossy().into_owned();
            if wanted.as_ref().is_some_and(|wanted| *wanted != release) {
                continue;
            }
            let images = [modules.path().join("vmlinuz"), self.root.join(format!("boot/vmlinuz-{release}"))];
            if let Some(image) = images.into_iter().find(|path| fs::File::open(path).is_ok()) {
                return Ok((image, modules.path()));
            }
        }
        Err(Error::host("there is no readable kernel for the guest image")
            .hint("make the running kernel's vmlinuz readable (`chmod a+r /boot/vmlinuz-$(uname -r)`) and keep its modules installed"))
    }

    /// Runs a filter of the tree (`xz`, `zstd`, `lz4`) over `data`. A private tree's program runs with the tree's own
    /// loader and libraries, so the host's do not matter.
    pub(super) fn filter(&self, program: &str, arguments: &[&str], data: Vec<u8>) -> Result<Vec<u8>> {
        use std::io::Write as _;
        let path = self.program(program).ok_or_else(|| {
            Error::host(format!("`{program}` is needed to unpack the kernel"))
                .hint(format!("install {program}"))
        })?;
        let mut command = match self.library("ld-linux-x86-64.so.2").filter(|_| self.private) {
            Some(loader) => {
                let libraries = std::env::join_paths(self.library_directories())
                    .context(|| "the cache directory's name cannot hold a colon".into())?;
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(path);
                command
            }
            None => Command::new(path),
        };
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(|| format!("cannot run {program}"))?;
        let input = child.stdin.take();
        // A thread feeds the filter, else both sides could wait for the other with full pipes. That the filter stops
        // reading early is no error: data may follow the compressed stream.
        let feeder = std::thread::spawn(move || input.map(|mut input| input.write_all(&data)));
        let output = child.wait_with_output().context(|| format!("cannot run {program}"))?;
        let _ = feeder.join();
        Ok(output.stdout)
    }

    /// SHA-256 over the files at these paths, for trees whose files have no package version to go by.
    pub(super) fn digest(paths: &[PathBuf]) -> Result<String> {
        let mut hash = Sha256::new();
        for path in paths {
            let data = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
            hash.update(Sha256::digest(&data));
        }
        Ok(hex(&hash.finalize()))
    }
}

/// Whether and where a program is in `PATH` (or in the system directories an ordinary user's `PATH` may lack).
pub(crate) fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|place| place.join(program)).find(|path| path.is_file())
}

fn apt(program: &str, options: &[String], arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    for option in options {
        command.args(["-o", option]);
    }
    command.args(arguments);
    command
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context(|| format!("cannot {what}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("cannot {what}")).caused_by(tail(&output.stderr)))
}

/// The last lines of a program's complaints, as one line.
pub(super) fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_kernels_and_libraries_belong() {
        for package in
            ["nftables_1.0.6-2_amd64", "libc6_2.36_amd64", "linux-modules-6.8.0-9-generic_6.8_amd64"]
        {
            assert!(belongs(package), "{package}");
        }
        for package in
            ["debconf_1.5_all", "passwd_4.13_amd64", "liblocale-gettext-perl_1_amd64", "kmod_30_amd64"]
        {
            assert!(!belongs(package), "{package}");
        }
    }
}
