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

const PROGRAMS: [Program; 8] = [
    Program {
        name: "dnsmasq",
        need: "DHCP and DNS of networks",
        packages: ["dnsmasq-base", "dnsmasq", "dnsmasq"],
        required: true,
    },
    Program {
        name: "nft",
        need: "NAT, filtering, firewalls",
        packages: ["nftables", "nftables", "nftables"],
        required: true,
    },
    Program {
        name: "busybox",
        need: "DHCP clients of namespace guests",
        packages: ["busybox-static", "busybox", "busybox"],
        required: true,
    },
    Program {
        name: "qemu-system-x86_64",
        need: "VM guests",
        packages: ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86"],
        required: true,
    },
    Program {
        name: "qemu-img",
        need: "VM guests with a disk image",
        packages: ["qemu-utils", "qemu-img", "qemu-img"],
        required: true,
    },
    Program {
        name: "curl",
        need: "guest images named by a URL",
        packages: ["curl", "curl", "curl"],
        required: false,
    },
    Program {
        name: "iperf3",
        need: "speed of networking modes",
        packages: ["iperf3", "iperf3", "iperf3"],
        required: false,
    },
    Program {
        name: "ping",
        need: "speed of networking modes",
        packages: ["iputils-ping", "iputils", "iputils"],
        required: false,
    },
];

/// What the built-in image carries besides, taken from the host where packages cannot be downloaded.
const GUEST_PROGRAMS: [&str; 9] =
    ["bridge", "dash", "ip", "iperf3", "ping", "qemu-ga", "socat", "ss", "tcpdump"];
const GUEST_PACKAGES: [&str; 3] = [
    "dash iperf3 iproute2 iputils-ping qemu-guest-agent socat tcpdump",
    "dash iperf3 iproute iputils qemu-guest-agent socat tcpdump",
    "dash iperf3 iproute2 iputils qemu-guest-agent socat tcpdump",
];

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let mut findings: Vec<Finding> = PROGRAMS.iter().map(|program| look_for(host, program)).collect();
    findings.push(guest_image(host));
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

/// Where packages can be downloaded without installing them, the guest image has a kernel and programs of its own; else
/// it is made of the host's.
fn guest_image(host: &Host) -> Finding {
    let (name, need) = ("guest-image", "VM guests with the built-in image");
    if ["apt-get", "dpkg-deb"].into_iter().all(|program| host.find(program).is_some()) {
        return Finding::ok(name, need, "made of distribution packages, which apt-get and dpkg-deb fetch");
    }
    let lost: Vec<&str> = GUEST_PROGRAMS.into_iter().filter(|program| host.find(program).is_none()).collect();
    if lost.is_empty() {
        return Finding::ok(name, need, "made of this host's own kernel and programs");
    }
    let [debian, fedora, arch] = GUEST_PACKAGES;
    let detail = format!("made of this host's own programs, of which these are missing: {}", lost.join(", "));
    Finding::missing(name, need, detail, Mend::packages(debian, fedora, arch))
}
