//! Programs that netloom runs.

use super::finding::{Finding, Mend};
use super::host::Host;

/// A program: what needs it, and the packages that bring it on Debian, Fedora and Arch.
struct Program {
    name: &'static str,
    need: &'static str,
    packages: [&'static str; 3],
    /// Whether something the README promises does not work without it.
    required: bool,
}

const fn required(name: &'static str, need: &'static str, packages: [&'static str; 3]) -> Program {
    Program { name, need, packages, required: true }
}

const PROGRAMS: [Program; 9] = [
    required("dnsmasq", "DHCP and DNS of networks", ["dnsmasq-base", "dnsmasq", "dnsmasq"]),
    required("nft", "NAT, filtering, firewalls", ["nftables", "nftables", "nftables"]),
    required(
        "busybox",
        "the built-in guest image; DHCP of namespace guests",
        ["busybox-static", "busybox", "busybox"],
    ),
    required(
        "qemu-system-x86_64",
        "VM guests",
        ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86"],
    ),
    required("qemu-img", "VM guests with a disk image", ["qemu-utils", "qemu-img", "qemu-img"]),
    required("xz", "the built-in guest image", ["xz-utils", "xz", "xz"]),
    required("zstd", "the built-in guest image", ["zstd", "zstd", "zstd"]),
    Program {
        name: "ping",
        need: "measuring by hand (netloom's own probes need no program)",
        packages: ["iputils-ping", "iputils", "iputils"],
        required: false,
    },
    Program {
        name: "ip",
        need: "looking by hand (netloom itself talks to the kernel)",
        packages: ["iproute2", "iproute", "iproute2"],
        required: false,
    },
];

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let mut findings: Vec<Finding> = PROGRAMS.iter().map(|program| look_for(host, program)).collect();
    findings.push(image_packages(host));
    findings
}

fn look_for(host: &Host, program: &Program) -> Finding {
    if let Some(path) = host.find(program.name) {
        return Finding::ok(program.name, program.need, path.display().to_string());
    }
    let [debian, fedora, arch] = program.packages;
    let mend = Mend::packages(debian, fedora, arch);
    let detail = format!("`{}` is in no directory of PATH", program.name);
    if program.required {
        Finding::missing(program.name, program.need, detail, mend)
    } else {
        Finding::warning(program.name, program.need, detail, mend)
    }
}

/// Where packages can be downloaded without installing them, the guest image has a kernel and programs of its own.
fn image_packages(host: &Host) -> Finding {
    let (name, need) = ("image-packages", "building the guest image from distribution packages");
    let lost: Vec<&str> =
        ["apt-get", "dpkg-deb"].into_iter().filter(|program| host.find(program).is_none()).collect();
    if lost.is_empty() {
        return Finding::ok(name, need, "apt-get and dpkg-deb are there");
    }
    let detail = format!("no {}: the image is made of this host's own kernel and programs", lost.join(", "));
    Finding::warning(name, need, detail, Mend::packages("apt dpkg", "apt dpkg", "apt dpkg"))
}
