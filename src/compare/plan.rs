//! What is asked of a lab: expectations as a file could hold them, made from the contract. No I/O.

use std::net::IpAddr;

use super::Property;
use super::cases::Case;
use crate::mode::Promise;
use crate::topology::{Endpoint, Expectation, ExpectedVerdict, Protocol, Service, Topology};

/// The port at which the host and those beyond it are asked (echo, RFC 862).
const ECHO: u16 = 7;
/// The port at which something listens on the host's loopback alone.
const INNER: u16 = 8007;

const ICMP: Service = Service { protocol: Protocol::Icmp, port: 0 };

/// What the host answers everywhere while it is measured.
pub(super) const HOST_SERVICES: [Service; 2] = both(ECHO);
/// What it answers on its loopback alone.
pub(super) const LOOPBACK_SERVICES: [Service; 2] = both(INNER);

/// Reference of the gateway's address, in place of a network's name.
pub(super) const LOOPBACK: &str = "loopback";
/// Reference of a forward's outer address; its number follows.
pub(super) const FORWARD: &str = "forward ";

const fn both(port: u16) -> [Service; 2] {
    [Service { protocol: Protocol::Tcp, port }, Service { protocol: Protocol::Udp, port }]
}

/// One question for [`crate::probe`].
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The cell it is for.
    pub(super) property: Property,
    /// What is asked.
    pub(super) expectation: Expectation,
    /// Whether it is asked before the LAN's router is told where the guests are.
    pub(super) alone: bool,
}

/// A lab's addresses as they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    /// Guests with one address of each family they have.
    pub(super) guests: Vec<(String, Vec<IpAddr>)>,
    /// Where guests look for the host: one address of each family.
    pub(super) host: Vec<IpAddr>,
    /// The gateway's.
    pub(super) gateway: Vec<IpAddr>,
    /// Where forwards are reached.
    pub(super) outer: Vec<IpAddr>,
    /// The neighbour's on the LAN: on the guests' own segment, if it has any there.
    pub(super) lan: Vec<IpAddr>,
}

impl Addresses {
    pub(super) fn of(&self, guest: &str) -> &[IpAddr] {
        self.guests.iter().find(|(name, _)| name == guest).map_or(&[], |(_, list)| list)
    }

    /// Where a forward of the lab's only network is reached: for what is sent to `target`'s family.
    pub(super) fn outer(&self, forward: &crate::topology::Forward) -> Option<IpAddr> {
        let family = |ip: &IpAddr| ip.is_ipv4() == forward.target.is_ipv4();
        forward.address.or_else(|| self.outer.iter().copied().find(family))
    }

    /// Whose address a forward leads to.
    pub(super) fn owner(&self, target: IpAddr) -> Option<&str> {
        let holds = |list: &[IpAddr]| list.contains(&target);
        self.guests.iter().find(|(_, list)| holds(list)).map(|(name, _)| name.as_str())
    }
}

/// Everything that is asked.
pub(super) fn questions(case: &Case, topology: &Topology, addresses: &Addresses) -> Vec<Question> {
    let mut list = List { case, topology, out: Vec::new() };
    let guests: Vec<&String> = addresses.guests.iter().map(|(name, _)| name).collect();
    for guest in &guests {
        let own = addresses.of(guest);
        let here = Endpoint::Guest((*guest).clone());
        let families = |others: &[IpAddr]| -> Vec<u8> {
            [4, 6]
                .into_iter()
                .filter(|f| [own, others].iter().all(|list| list.iter().any(|ip| family(*ip) == *f)))
                .collect()
        };
        let served = list.served(guest);
        let with_host = families(&addresses.host);
        list.ask(Property::G2h, (&here, &Endpoint::Host), &with_host, &HOST_SERVICES);
        list.ask(Property::H2g, (&Endpoint::Host, &here), &with_host, &served);
        for other in guests.iter().filter(|other| *other != guest) {
            let there = Endpoint::Guest((*other).clone());
            let services = list.served(other);
            list.ask(Property::G2g, (&here, &there), &families(addresses.of(other)), &services);
        }
        for beyond in [Endpoint::Lan, Endpoint::Outside] {
            let all = families(&addresses.lan);
            list.ask(Property::G2l, (&here, &beyond), &all, &HOST_SERVICES);
            list.ask(Property::L2g, (&beyond, &here), &all, &served);
        }
        if !addresses.gateway.is_empty() && loops(topology) {
            list.loopback(&here);
        }
    }
    list.forwards(addresses);
    list.out
}

/// Whether the mode of the lab's network leads to the host's loopback.
pub(super) fn loops(topology: &Topology) -> bool {
    topology.networks.values().any(|network| network.wiring.loopback)
}

/// Guests to themselves: these servers must be up before silence means anything.
pub(super) fn controls(topology: &Topology, addresses: &Addresses) -> Vec<Expectation> {
    let of = |(guest, own): &(String, Vec<IpAddr>)| -> Vec<Expectation> {
        let here = Endpoint::Guest(guest.clone());
        let services = topology.guests.get(guest).map_or(&[][..], |guest| &guest.serve);
        let each = |service: &Service| {
            let ask = |ip: &IpAddr| {
                expectation((&here, &here), *service, None, family(*ip), ExpectedVerdict::Reachable)
            };
            own.iter().map(ask).collect::<Vec<_>>()
        };
        services.iter().flat_map(each).collect()
    };
    addresses.guests.iter().flat_map(of).collect()
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

fn expectation(
    (from, to): (&Endpoint, &Endpoint),
    service: Service,
    via: Option<String>,
    family: u8,
    verdict: ExpectedVerdict,
) -> Expectation {
    let (from, to, family) = (from.clone(), to.clone(), Some(family));
    Expectation { from, to, service, via, family, verdict, line: 0 }
}

struct List<'a> {
    case: &'a Case,
    topology: &'a Topology,
    out: Vec<Question>,
}

impl List<'_> {
    /// One TCP and one UDP service of a guest.
    fn served(&self, guest: &str) -> Vec<Service> {
        let serve = self.topology.guests.get(guest).map_or(&[][..], |guest| &guest.serve);
        let first = |protocol| serve.iter().copied().find(|service| service.protocol == protocol);
        [Protocol::Tcp, Protocol::Udp].into_iter().filter_map(first).collect()
    }

    /// ICMP and these services, over these families.
    fn ask(
        &mut self,
        property: Property,
        ends: (&Endpoint, &Endpoint),
        families: &[u8],
        services: &[Service],
    ) {
        // What is promised only decides how long to wait for an answer.
        let verdict = match property.direction().map(|direction| self.case.promise(direction)) {
            Some(Promise::Pass) => ExpectedVerdict::Reachable,
            _ => ExpectedVerdict::Blocked,
        };
        for family in families {
            for service in std::iter::once(&ICMP).chain(services) {
                let expectation = expectation(ends, *service, None, *family, verdict);
                // A guest that leaves with an address of its own would be answered else.
                let alone = property == Property::G2l && verdict == ExpectedVerdict::Reachable;
                self.out.push(Question { property, expectation, alone });
            }
        }
    }

    fn loopback(&mut self, here: &Endpoint) {
        for service in LOOPBACK_SERVICES {
            let via = Some(LOOPBACK.to_owned());
            let expectation =
                expectation((here, &Endpoint::Host), service, via, 4, ExpectedVerdict::Reachable);
            self.out.push(Question { property: Property::Loopback, expectation, alone: false });
        }
    }

    /// Through the forwards, in the directions that have nothing else.
    fn forwards(&mut self, addresses: &Addresses) {
        let forwards = self.topology.networks.values().flat_map(|network| &network.forwards);
        for (number, forward) in forwards.enumerate() {
            // A guest that is not where it should be is asked for there all the same, and does not answer.
            let meant = forward.guest.as_deref();
            let Some(owner) = addresses.owner(forward.target).or(meant) else { continue };
            // A port that nobody answers at is there for something else.
            let inner = Service { protocol: forward.protocol, port: forward.port };
            let serve = self.topology.guests.get(owner).map_or(&[][..], |guest| &guest.serve);
            if !serve.contains(&inner) {
                continue;
            }
            let there = Endpoint::Guest(owner.to_owned());
            let service = Service { protocol: forward.protocol, port: forward.ports.0 };
            let sources = [
                (Property::H2g, Endpoint::Host),
                (Property::L2g, Endpoint::Lan),
                (Property::L2g, Endpoint::Outside),
            ];
            for (property, from) in sources {
                let promise = property.direction().map(|direction| self.case.promise(direction));
                if promise == Some(Promise::Forward) {
                    let via = Some(format!("{FORWARD}{number}"));
                    let family = family(forward.target);
                    let expectation =
                        expectation((&from, &there), service, via, family, ExpectedVerdict::Reachable);
                    self.out.push(Question { property, expectation, alone: false });
                }
            }
        }
    }
}
