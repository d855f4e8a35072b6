//! The real things: what each construct is in its system itself, and how it is known to differ from netloom's.

use super::system::System;
use crate::compare::cases::Case;
use crate::compare::{Probe, Property};
use crate::probe::Verdict;

/// What the system makes for a construct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A bridge of libvirt's own, with this forward mode; `none` for no `<forward>` at all.
    Network(&'static str),
    /// Ports on a bridge that is there already.
    HostBridge,
    /// A macvtap on the uplink, in this mode.
    Direct(&'static str),
    /// No network: a process for each NIC.
    User(Backend),
    /// A managed bridge of Incus's.
    Managed,
}

/// Who plays the network of a NIC that is on none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The one inside QEMU.
    Slirp,
    /// A process of its own.
    Passt,
}

/// Probes that are not answered, while all others of their kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent {
    /// Their protocol; `None` for any.
    pub protocol: Option<&'static str>,
    /// Their family; `None` for both.
    pub family: Option<u8>,
    /// Whether they go through a forward, since nothing is answered at the guest's own address.
    pub forwarded: bool,
}

/// A cell in which the real thing is known to be another one, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The cell.
    pub property: Property,
    /// What the real thing shows there.
    pub shows: &'static str,
    /// Of a `mixed` cell: what is not answered.
    pub silent: Silent,
    /// The reason.
    pub why: &'static str,
}

/// One real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thing {
    /// The construct that stands for it.
    pub construct: &'static str,
    /// What to call it, short and unique among its construct's: part of a lab's name.
    pub name: &'static str,
    /// Whose it is.
    pub system: System,
    /// What is made.
    pub make: Make,
    /// Whether the ports carry `<port isolated='yes'/>`.
    pub isolated: bool,
    /// Whether it exists for domains alone: then guests are VMs, whatever was asked for.
    pub for_domains: bool,
    /// Where it differs.
    pub known: &'static [Known],
}

const THING: Thing = Thing {
    construct: "",
    name: "libvirt",
    system: System::Libvirt,
    make: Make::Network("none"),
    isolated: false,
    for_domains: false,
    known: &[],
};

/// IPv6 echo requests.
const PINGS: Silent = Silent { protocol: Some("icmp"), family: Some(6), forwarded: false };
const SLIRP_PINGS: &str = "slirp passes TCP and UDP over both families and pings of IPv4, but no ping of IPv6 beyond \
                           itself; netloom's engine passes those, too";
/// What is asked by TCP.
const TCP: Silent = Silent { protocol: Some("tcp"), family: None, forwarded: true };
const PASST_TCP: &str = "passt of 2023 acknowledges what the guest accepts only when the client has something to say, so \
                         that a server that speaks first, as netloom's do, says nothing; UDP is answered";
/// For cells that are not mixed.
const NOTHING: Silent = Silent { protocol: None, family: None, forwarded: false };
const PASST_DHCP: &str =
    "the lease is passt's own, which gives it in the name of the host's gateway, the LAN's router";
/// What is asked through a forward of IPv6.
const FORWARDS: Silent = Silent { protocol: None, family: Some(6), forwarded: true };
const SLIRP_FORWARDS: &str =
    "QEMU forwards ports to slirp's guests over IPv4 alone; netloom's engine over IPv6, too";

const INCUS_OPEN: &str = "Incus refuses nothing that comes in: who knows a way to the guests' subnet reaches them, and only \
                          their private addresses keep others out; netloom's filter lets in what is forwarded alone";

const THINGS: &[Thing] = &[
    Thing { construct: "libvirt/nat", make: Make::Network("nat"), ..THING },
    Thing { construct: "libvirt/route", make: Make::Network("route"), ..THING },
    Thing { construct: "libvirt/open", make: Make::Network("open"), ..THING },
    Thing { construct: "libvirt/isolated", make: Make::Network("none"), ..THING },
    Thing { construct: "libvirt/very-isolated", make: Make::Network("none"), ..THING },
    Thing { construct: "libvirt/bridge", make: Make::HostBridge, for_domains: true, ..THING },
    Thing { construct: "libvirt/macvtap-bridge", make: Make::Direct("bridge"), for_domains: true, ..THING },
    Thing { construct: "libvirt/macvtap-vepa", make: Make::Direct("vepa"), for_domains: true, ..THING },
    Thing { construct: "libvirt/macvtap-private", make: Make::Direct("private"), for_domains: true, ..THING },
    Thing {
        construct: "libvirt/user",
        name: "slirp",
        make: Make::User(Backend::Slirp),
        for_domains: true,
        known: &[
            Known { property: Property::G2h, shows: "mixed", silent: PINGS, why: SLIRP_PINGS },
            Known { property: Property::G2l, shows: "mixed", silent: PINGS, why: SLIRP_PINGS },
            Known { property: Property::H2g, shows: "mixed", silent: FORWARDS, why: SLIRP_FORWARDS },
            Known { property: Property::L2g, shows: "mixed", silent: FORWARDS, why: SLIRP_FORWARDS },
        ],
        ..THING
    },
    Thing {
        construct: "libvirt/user",
        name: "passt",
        make: Make::User(Backend::Passt),
        for_domains: true,
        known: &[
            Known { property: Property::H2g, shows: "mixed", silent: TCP, why: PASST_TCP },
            Known { property: Property::L2g, shows: "mixed", silent: TCP, why: PASST_TCP },
            Known { property: Property::Dhcp, shows: "lan", silent: NOTHING, why: PASST_DHCP },
        ],
        ..THING
    },
    Thing {
        construct: "libvirt/isolated-port",
        make: Make::Network("nat"),
        isolated: true,
        for_domains: true,
        ..THING
    },
    Thing {
        construct: "incus/bridge",
        name: "incus",
        system: System::Incus,
        make: Make::Managed,
        known: &[Known { property: Property::L2g, shows: "pass", silent: NOTHING, why: INCUS_OPEN }],
        ..THING
    },
];

/// The real things of a construct; none where there is nothing to set it against.
pub fn of(construct: &str) -> impl Iterator<Item = &'static Thing> {
    THINGS.iter().filter(move |thing| thing.construct == construct)
}

/// Those of one system.
pub fn of_system(system: System, construct: &str) -> impl Iterator<Item = &'static Thing> {
    of(construct).filter(move |thing| thing.system == system)
}

impl Thing {
    /// Name of the lab that shows it, in the state of this case.
    #[must_use]
    pub fn lab(&self, case: &Case) -> String {
        format!("{}-{}", case.lab(), self.name)
    }

    /// The lab's file: that of netloom's own example under another name.
    #[must_use]
    pub fn file(&self, case: &Case) -> String {
        let example = case.example();
        let rest = example.split_once('\n').map_or("", |(_, rest)| rest);
        format!("lab: {}\n{rest}", self.lab(case))
    }

    /// Why a cell of it may show this.
    #[must_use]
    pub fn explains(&self, property: Property, shows: &str, probes: &[Probe]) -> Option<&'static str> {
        // Where nothing is answered at the guest's own address, the forwards decide.
        let forwarded = !probes.iter().any(|p| p.through.is_none() && p.verdict == Verdict::Reachable);
        let decide: Vec<&Probe> = probes.iter().filter(|p| p.through.is_some() == forwarded).collect();
        let silent = |known: &Known| {
            let Silent { protocol, family, forwarded: through } = known.silent;
            let expected = |probe: &Probe| {
                protocol.is_none_or(|protocol| probe.service.split('/').next() == Some(protocol))
                    && family.is_none_or(|family| probe.family == Some(family))
            };
            let exactly = |probe: &&Probe| expected(probe) == (probe.verdict != Verdict::Reachable);
            shows != "mixed" || (through == forwarded && decide.iter().all(exactly))
        };
        let fits = |known: &&Known| known.property == property && known.shows == shows && silent(known);
        self.known.iter().find(fits).map(|known| known.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cases;

    fn probe(service: &str, family: u8, through: bool, verdict: Verdict) -> Probe {
        Probe {
            from: "a".into(),
            to: "host".into(),
            service: service.into(),
            through: through.then(|| "forward".into()),
            family: Some(family),
            address: None,
            verdict,
            detail: String::new(),
            control: None,
            rtt_us: None,
        }
    }

    #[test]
    fn every_construct_of_libvirt_has_its_real_thing() {
        for case in cases::all() {
            let is_libvirts = case.mode.id.starts_with("libvirt/");
            assert_eq!(
                of_system(System::Libvirt, case.mode.id).next().is_some(),
                is_libvirts,
                "{}",
                case.mode.id
            );
            for thing in of(case.mode.id) {
                assert!(thing.lab(&case).len() <= 32, "{}", thing.lab(&case));
                assert!(case.mode.id.starts_with(thing.system.name()));
            }
        }
        assert!(THINGS.iter().all(|thing| cases::find(thing.construct, 0).is_ok()));
    }

    #[test]
    fn a_reason_explains_what_it_is_the_reason_for_and_no_more() {
        use Verdict::{Blocked, Reachable};
        let slirp = of("libvirt/user").find(|thing| thing.name == "slirp").unwrap();
        let mut probes = vec![
            probe("icmp", 4, false, Reachable),
            probe("icmp", 6, false, Blocked),
            probe("tcp/7", 6, false, Reachable),
        ];
        let why = |probes: &[Probe], shows: &str| slirp.explains(Property::G2h, shows, probes).is_some();
        assert!(why(&probes, "mixed"));
        assert!(!why(&probes, "block"));
        // One more that is silent, and one less.
        probes[2].verdict = Blocked;
        assert!(!why(&probes, "mixed"));
        probes[2].verdict = Reachable;
        probes.push(probe("icmp", 6, false, Reachable));
        assert!(!why(&probes, "mixed"));

        let mut forwards = vec![
            probe("tcp/80", 4, false, Blocked),
            probe("tcp/80", 6, false, Blocked),
            probe("tcp/8080", 4, true, Reachable),
            probe("tcp/8080", 6, true, Blocked),
        ];
        let why = |probes: &[Probe]| slirp.explains(Property::H2g, "mixed", probes).is_some();
        assert!(why(&forwards));
        forwards[0].verdict = Reachable;
        assert!(!why(&forwards));
    }
}
