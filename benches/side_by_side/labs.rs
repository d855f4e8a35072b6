//! Labs of any size, as text. Each is also there for a look or a run by hand: `side_by_side --generate fabric 1000`.

use std::fmt::Write as _;

/// What a generated lab looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// N networks with the host's address, one guest on each: the floor's own objects.
    Fabric,
    /// N switches in a chain, one guest on each: mininet's `linear,N`.
    Linear,
    /// N guests on one switch, each serving TCP port 80, and the expectation that everyone reaches everyone.
    Mesh,
    /// N virtual machines on one network, addresses fixed.
    Machines,
}

impl Shape {
    /// Its name on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "fabric" => Some(Self::Fabric),
            "linear" => Some(Self::Linear),
            "mesh" => Some(Self::Mesh),
            "machines" => Some(Self::Machines),
            _ => None,
        }
    }

    /// The file.
    pub(crate) fn yaml(self, n: usize) -> String {
        match self {
            Self::Fabric => fabric(n, Extra::Nothing),
            Self::Linear => linear(n),
            Self::Mesh => mesh(n),
            Self::Machines => machines(n),
        }
    }
}

/// What a fabric of N has besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    Nothing,
    /// One more guest, on the first network.
    Guest,
    /// A firewall between the first two networks, with this port open.
    Firewall(u16),
}

/// Name of the lab in every file.
pub(crate) const LAB: &str = "bench";

fn net(i: usize) -> String {
    format!("10.{}.{}", i >> 8, i & 255)
}

/// N networks and guests; short lines, since a file has at most 8 MiB.
pub(crate) fn fabric(n: usize, extra: Extra) -> String {
    let mut text = format!("lab: {LAB}\nnetworks:\n");
    for i in 0..n {
        let subnet = net(i);
        let _ =
            writeln!(text, "  n{i}: {{ mode: host-only, subnet: {subnet}.0/24, dhcp: false, dns: false }}");
    }
    text.push_str("guests:\n");
    for i in 0..n {
        let subnet = net(i);
        let _ = writeln!(
            text,
            "  g{i}: {{ kind: namespace, nics: [{{ network: n{i}, address: {subnet}.2/24 }}] }}"
        );
    }
    match extra {
        Extra::Nothing => {}
        Extra::Guest => {
            text.push_str("  extra: { kind: namespace, nics: [{ network: n0, address: 10.0.0.3/24 }] }\n");
        }
        Extra::Firewall(port) => {
            let _ = write!(
                text,
                "  fw:\n    kind: namespace\n    nics:\n      - {{ network: n0, address: 10.0.0.4/24 }}\n      \
                 - {{ network: n1, address: 10.0.1.4/24 }}\n    firewall:\n      zones: {{ a: [n0], b: [n1] }}\n      \
                 rules:\n        - {{ from: a, to: b, service: tcp/{port} }}\n"
            );
        }
    }
    text
}

fn linear(n: usize) -> String {
    let mut text = format!("lab: {LAB}\nnetworks:\n");
    for i in 0..n {
        let _ = writeln!(text, "  s{i}: {{ mode: internal }}");
    }
    text.push_str("links:\n");
    for i in 1..n {
        let _ = writeln!(text, "  - {{ between: [s{}, s{i}] }}", i - 1);
    }
    text.push_str("guests:\n");
    for i in 0..n {
        let address = format!("10.0.{}.{}", (i + 1) >> 8, (i + 1) & 255);
        let _ = writeln!(
            text,
            "  h{i}: {{ kind: namespace, nics: [{{ network: s{i}, address: {address}/8 }}] }}"
        );
    }
    text
}

fn mesh(n: usize) -> String {
    let mut text =
        format!("lab: {LAB}\nnetworks:\n  lan: {{ mode: internal, subnet: 10.0.0.0/16 }}\nguests:\n");
    for i in 0..n {
        let address = format!("10.0.{}.{}", (i + 1) >> 8, (i + 1) & 255);
        let _ = writeln!(
            text,
            "  g{i}: {{ kind: namespace, serve: [tcp/80], nics: [{{ network: lan, address: {address}/16 }}] }}"
        );
    }
    text.push_str("expect:\n");
    for from in 0..n {
        for to in (0..n).filter(|to| *to != from) {
            let _ = writeln!(text, "  - {{ from: g{from}, to: g{to}, verdict: reachable }}");
            let _ = writeln!(text, "  - {{ from: g{from}, to: g{to}, service: tcp/80, verdict: reachable }}");
        }
    }
    text
}

fn machines(n: usize) -> String {
    let mut text =
        format!("lab: {LAB}\nnetworks:\n  lan: {{ mode: host-only, subnet: 10.0.0.0/24, dhcp: false }}\n");
    text.push_str("guests:\n");
    for i in 0..n {
        let _ = writeln!(text, "  vm{i}: {{ nics: [{{ network: lan, address: 10.0.0.{}/24 }}] }}", i + 10);
    }
    text
}
