//! What the host sees of a VM by itself: who answers ARP and neighbour discovery on the networks where the host has an
//! address. For images that a user named, which may have no guest agent.
//!
//! Proof is an entry of the kernel's neighbour table with the NIC's own MAC address, made after the entries from before
//! were forgotten: so it is this boot that answered, without any arithmetic on clocks. What a guest has an address for
//! but the host no leg to see is not judged.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::ReadyInterface;
use crate::error::{Error, Result};
use crate::guest::seed::console::{self, Progress as Word};
use crate::host::files;
use crate::host::lab::LabHost;
use crate::host::links::Neighbour;
use crate::inventory::Inventory;
use crate::mode::Gateway;
use crate::mode::router::INSIDE;
use crate::resource::{Place, names};
use crate::topology::{Addressing, Attach, Guest, Interface, Mac, Nic, Topology};

/// How long a guest that answers but says nothing of itself may take to start an agent. Agents of distributions start
/// at the end of the basic boot, a few seconds after the network under KVM, half a minute under emulation.
const GRACE: Duration = Duration::from_secs(60);

/// How often an address that does not answer is asked for, and the table looked at.
const ASKS: Duration = Duration::from_secs(1);
const LOOKS: Duration = Duration::from_millis(100);

/// How long a guest that should be there is given to answer: the kernel asks three times, a second apart.
const GLANCE: Duration = Duration::from_secs(3);

/// Remembered beside a guest's disk once it was found to have no agent: its next look need not wait for one.
const NO_AGENT: &str = "no-agent";

/// An interface of the guest on a network where the host, or the network's own router on it, has an address.
#[derive(Debug)]
struct View<'a> {
    interface: &'a Interface,
    mac: Mac,
    /// Where the leg is: on the host, or in the network's own router.
    place: Place,
    /// Index of the leg.
    link: u32,
    /// Its addresses.
    own: Vec<IpNetwork>,
    /// Lease file of the network's DHCP server, where it has one.
    leases: Option<PathBuf>,
}

/// What the host can see of one guest.
pub(super) struct Sight<'a> {
    host: &'a LabHost,
    guest: &'a Guest,
    views: Vec<View<'a>>,
}

/// How much of a guest answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answering {
    /// All of it that the host can see.
    All,
    NotAll,
    /// The host has no leg to see any of it.
    CannotBeSeen,
}

/// What to make of a guest whose agent has not answered so far.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Ready,
    ReadyUnlessAnAgentComes,
    Wait,
    Failed(String),
}

/// Judges by the guest's last word on its console and by what answers.
fn judge(word: Option<Word>, seen: Answering) -> Judgement {
    match (word, seen) {
        (Some(Word::Failed { reasons }), _) => Judgement::Failed(reasons),
        (Some(Word::Begun), _) | (_, Answering::NotAll) => Judgement::Wait,
        (Some(Word::Ready { agent: false }), _) => Judgement::Ready,
        // An image's agent may be switched off, or kept from its channel.
        (Some(Word::Ready { agent: true }), _) => Judgement::ReadyUnlessAnAgentComes,
        (None, Answering::All) => Judgement::ReadyUnlessAnAgentComes,
        // Nothing seen, nothing said.
        (None, Answering::CannotBeSeen) => Judgement::Wait,
    }
}

/// Addresses that answered, by interface name.
type Answers = Vec<(String, Vec<IpNetwork>)>;

impl<'a> Sight<'a> {
    /// Finds the host's legs and forgets what was known of the guest there.
    pub(super) async fn open(topology: &Topology, host: &'a LabHost, guest: &'a Guest) -> Result<Self> {
        let mut views = Vec::new();
        for nic in &guest.nics {
            for interface in &nic.interfaces {
                let server = server(topology, nic, interface);
                let leases = server.map(|service| host.dir().service(&service).join("leases"));
                for (place, leg) in legs(topology, nic, interface) {
                    // A place that is not there has no leg.
                    let Ok(state) = host.links().observe(&place).await else { continue };
                    let Some(link) = state.link(&leg) else { continue };
                    let own = Inventory::addresses(link);
                    if !own.is_empty() {
                        views.push(View { interface, mac: nic.mac, place, link: link.index, own, leases });
                        break;
                    }
                }
            }
        }
        let sight = Self { host, guest, views };
        for view in &sight.views {
            let known = host.links().neighbours(&view.place).await?;
            let wanted = view.candidates(&known);
            let of_view = |n: &&Neighbour| n.link == view.link;
            let ours = |n: &&Neighbour| n.mac == view.mac || wanted.iter().any(|net| net.ip() == n.address);
            for old in known.iter().filter(of_view).filter(ours) {
                host.links().forget_neighbour(&view.place, old.link, old.address).await?;
            }
        }
        Ok(sight)
    }

    /// Who has answered by now; `ask` has the kernel ask those who have not.
    async fn look(&self, ask: bool) -> Result<Answers> {
        let mut answers = Vec::new();
        for view in &self.views {
            let known = self.host.links().neighbours(&view.place).await?;
            let (proven, silent): (Vec<_>, Vec<_>) =
                view.candidates(&known).into_iter().partition(|net| view.answers(&known, net.ip()));
            for address in silent.iter().filter(|_| ask) {
                self.host.links().solicit(&view.place, view.link, address.ip()).await?;
            }
            answers.push((view.interface.name.clone(), proven));
        }
        Ok(answers)
    }

    /// What should answer and does not, in words.
    fn missing(&self, answers: &Answers) -> Vec<String> {
        let of = |view: &View<'_>| {
            let mine = answers.iter().find(|(name, _)| *name == view.interface.name);
            view.missing(mine.map_or(&[], |(_, addresses)| addresses))
        };
        self.views.iter().flat_map(of).collect()
    }

    /// Whether there is anything that should answer.
    fn awaits(&self) -> bool {
        !self.missing(&Answers::new()).is_empty()
    }

    /// A look that is long enough for a guest that is there to answer: shorter once only addresses are silent that it
    /// need not have.
    pub(super) async fn glance(&self) -> Result<Vec<ReadyInterface>> {
        let began = Instant::now();
        let mut answers = self.look(true).await?;
        while !self.all_answer(&answers) {
            let enough = if self.missing(&answers).is_empty() { GLANCE / 6 } else { GLANCE };
            if began.elapsed() >= enough {
                break;
            }
            tokio::time::sleep(LOOKS / 4).await;
            answers = self.look(false).await?;
        }
        Ok(self.interfaces(&answers))
    }

    fn all_answer(&self, answers: &Answers) -> bool {
        let of = |view: &View<'_>| {
            let mine = answers.iter().find(|(name, _)| *name == view.interface.name);
            let proven = mine.map_or(&[][..], |(_, addresses)| addresses);
            view.candidates(&[]).iter().all(|wanted| proven.contains(wanted))
        };
        self.views.iter().all(of)
    }

    /// Waits until the guest is seen to be ready without an agent, however long that takes; says what it was judged by.
    ///
    /// Everything the host can see must answer. Then the guest's own word on its console counts (`seed::console`): that
    /// it is set up and has no agent is enough; that it has begun means to wait for the rest. A guest that says nothing,
    /// since it does not carry out a seed or has another console, is given [`GRACE`] for an agent to come.
    pub(super) async fn ready(&self) -> Result<(Vec<ReadyInterface>, &'static str)> {
        let home = self.host.dir().guest(&self.guest.name);
        let grace = if home.join(NO_AGENT).exists() { Duration::ZERO } else { GRACE };
        let (mut since, mut asked): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            let ask = asked.is_none_or(|asked| asked.elapsed() >= ASKS);
            if ask {
                asked = Some(Instant::now());
            }
            let answers = self.look(ask).await?;
            let seen = match (self.awaits(), self.missing(&answers).is_empty()) {
                (false, _) => Answering::CannotBeSeen,
                (true, true) => Answering::All,
                (true, false) => Answering::NotAll,
            };
            match judge(console::progress(&home.join("console.log")), seen) {
                Judgement::Failed(reasons) => return Err(super::not_configured(self.guest, &reasons)),
                Judgement::Ready => return self.judged(&answers, seen),
                Judgement::Wait => since = None,
                Judgement::ReadyUnlessAnAgentComes => {
                    if since.get_or_insert_with(Instant::now).elapsed() >= grace {
                        return self.judged(&answers, seen);
                    }
                }
            }
            tokio::time::sleep(LOOKS).await;
        }
    }

    fn judged(&self, answers: &Answers, seen: Answering) -> Result<(Vec<ReadyInterface>, &'static str)> {
        let by = if seen == Answering::All { "answers ARP or ND" } else { "says so on its console" };
        let note = self.host.dir().guest(&self.guest.name).join(NO_AGENT);
        crate::host::labdir::write(&note, by)?;
        Ok((self.interfaces(answers), by))
    }

    /// Adds to an agent's silence what the host saw, and the mend.
    pub(super) async fn explain(&self, silence: Error) -> Error {
        let Ok(answers) = self.look(false).await else { return silence };
        let missing = self.missing(&answers);
        if !self.awaits() {
            return silence
                .caused_by("the host cannot see for itself whether the guest answers: it has no address on the guest's networks, or gives none out there")
                .hint("put qemu-guest-agent into the image, or give the host an address on one of the guest's networks (mode `nat`, `routed` or `host-only`)");
        }
        if missing.is_empty() {
            let said = "its addresses answer, but it never said on its console that its seed was carried out";
            return silence.caused_by(said).hint("`netloom up --keep` leaves the lab for a look; `netloom console` shows what the guest waits for; a slow guest needs a longer `--timeout`");
        }
        silence.caused_by(format!("nor does the host see it: no {}", missing.join(", "))).hint(
            "its image must carry out a NoCloud seed, as cloud-init does; a slow guest needs a longer `--timeout`",
        )
    }

    fn interfaces(&self, answers: &Answers) -> Vec<ReadyInterface> {
        super::ready_interfaces(self.guest, answers)
    }
}

/// Legs in the network (or VLAN) that an interface is on, by place and link: the host's, and that of the network's own
/// router, which is a namespace of the lab.
fn legs(topology: &Topology, nic: &Nic, interface: &Interface) -> Vec<(Place, String)> {
    let Some(network) = topology.networks.get(&nic.network) else { return Vec::new() };
    let vid = match (interface.vid, nic.attach.clone()) {
        (Some(vid), _) | (None, Attach::Access(vid) | Attach::Trunk { native: Some(vid), .. }) => vid,
        (None, Attach::Trunk { native: None, .. }) => return Vec::new(),
        (None, Attach::Plain) => {
            let bridge = names::link(&topology.lab, "bridge", &network.name);
            let router = names::router_netns(&topology.lab, &network.name);
            return vec![(Place::Host, bridge), (Place::Netns(router), INSIDE.to_owned())];
        }
    };
    let vlan = network.vlans.iter().find(|(_, vlan)| vlan.vid == vid);
    let link = |name| names::link(&topology.lab, "vlan", &format!("{}.{name}", network.name));
    vlan.map(|(name, _)| (Place::Host, link(name))).into_iter().collect()
}

/// The lab's service on the host that gives an interface its address.
fn server(topology: &Topology, nic: &Nic, interface: &Interface) -> Option<String> {
    let network = topology.networks.get(&nic.network)?;
    if network.dhcp.is_none() || interface.vid.is_some() || nic.attach != Attach::Plain {
        return None;
    }
    let at_router = network.wiring.gateway != Gateway::Host && !network.gateway.is_empty();
    let of = if at_router { names::router(&network.name) } else { names::network(&network.name) };
    Some(format!("{of}/dnsmasq"))
}

impl View<'_> {
    /// Addresses that the interface may have, with the prefix lengths of the host's.
    fn candidates(&self, known: &[Neighbour]) -> Vec<IpNetwork> {
        let on_link = |ip: IpAddr| self.own.iter().find(|own| own.contains(ip));
        let mut out: Vec<IpNetwork> = match &self.interface.addressing {
            Addressing::None => return Vec::new(),
            Addressing::Static(list) => {
                return list.iter().filter(|a| on_link(a.ip()).is_some()).copied().collect();
            }
            Addressing::Dynamic { .. } => {
                let leases = self.leases.as_ref().and_then(|path| files::read(path).ok());
                let leased = leased(&leases.unwrap_or_default(), self.mac);
                // What the interface gives itself by the usual rule, and whatever else its MAC has answered at.
                let own = self.own.iter().filter_map(|own| autoconfigured(own, self.mac));
                let met =
                    known.iter().filter(|n| n.link == self.link && n.mac == self.mac).map(|n| n.address);
                let all = leased.into_iter().chain(own).chain(met);
                all.filter_map(|ip| IpNetwork::new(ip, on_link(ip)?.prefix()).ok()).collect()
            }
        };
        out.sort();
        out.dedup();
        out
    }

    fn answers(&self, known: &[Neighbour], address: IpAddr) -> bool {
        known.iter().any(|n| n.link == self.link && n.mac == self.mac && n.address == address)
    }

    /// What should answer and is not among `proven`. An autoconfigured IPv6 address is only waited for where there is
    /// no lease to wait for: a guest may choose it freely, and the host would ask for another.
    fn missing(&self, proven: &[IpNetwork]) -> Vec<String> {
        let answer = |address: &IpNetwork| format!("answer from {}", address.ip());
        match &self.interface.addressing {
            Addressing::None => Vec::new(),
            Addressing::Static(_) => {
                self.candidates(&[]).iter().filter(|address| !proven.contains(address)).map(answer).collect()
            }
            Addressing::Dynamic { v4: true, .. } if self.leases.is_some() => {
                if proven.iter().any(IpNetwork::is_ipv4) {
                    return Vec::new();
                }
                let leased = self.candidates(&[]).into_iter().find(IpNetwork::is_ipv4);
                vec![
                    leased
                        .as_ref()
                        .map_or_else(|| format!("DHCP lease on {}", self.interface.reference), answer),
                ]
            }
            Addressing::Dynamic { v6: true, .. } if self.own.iter().any(IpNetwork::is_ipv6) => {
                if proven.iter().any(IpNetwork::is_ipv6) {
                    return Vec::new();
                }
                self.candidates(&[]).iter().filter(|address| address.is_ipv6()).map(answer).collect()
            }
            Addressing::Dynamic { .. } => Vec::new(),
        }
    }
}

/// Addresses that dnsmasq has leased to a MAC address. A line of its file is `EXPIRY MAC ADDRESS NAME CLIENT-ID`.
pub(crate) fn leased(file: &str, mac: Mac) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let whose: Mac = words.next()?.parse().ok()?;
        let address = words.next()?.parse().ok()?;
        (whose == mac).then_some(address)
    };
    file.lines().filter_map(of_line).collect()
}

/// The address that stateless autoconfiguration makes of a prefix and a MAC address (RFC 4862 with the interface
/// identifier of RFC 2464); for prefixes of 64 bits alone.
fn autoconfigured(prefix: &IpNetwork, mac: Mac) -> Option<IpAddr> {
    let IpNetwork::V6(prefix) = prefix else { return None };
    if prefix.prefix() != 64 {
        return None;
    }
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = prefix.network().octets();
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Some(IpAddr::V6(Ipv6Addr::from(octets)))
}

#[cfg(test)]
mod tests;
