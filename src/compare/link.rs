//! What is asked on a guest's own link, which no expectation of a file can ask: who hands out addresses, whether the
//! host is found there. By sockets in a namespace, by busybox inside a VM.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::Probe;
use crate::error::{Error, Result};
use crate::host::links::Links;
use crate::host::netns;
use crate::probe::{Exec, Vantage, Verdict, dhcp};
use crate::resource::Place;
use crate::sandbox::world;

/// How long one waits for an offer of a lease, and for an answer about an address.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);
/// The discard port (RFC 863): what is sent there needs no answer.
const DISCARD: u16 = 9;
/// How long a command inside a VM may take; on a busy machine an emulated one takes long.
const COMMAND: Duration = Duration::from_secs(120);

/// What the host is called in probes and in its answers.
pub(super) const HOST: &str = "host";

/// A guest's link as the guest sees it.
pub(super) struct Link<'a> {
    /// The guest.
    pub(super) guest: &'a str,
    /// Kernel name in the guest.
    pub(super) name: &'a str,
    /// The guest's addresses with their subnets.
    pub(super) own: Vec<IpNetwork>,
    /// Where questions start.
    pub(super) vantage: Vantage,
    /// How long to wait for an offer of a lease.
    pub(super) patience: Duration,
}

impl Link<'_> {
    fn near(&self, address: IpAddr) -> bool {
        self.own.iter().any(|net| net.contains(address))
    }

    /// Who offers a lease; `to` says who it was: `server`, `lan`, `none`.
    pub(super) async fn lease(&self) -> Result<Probe> {
        let servers = match &self.vantage {
            Vantage::Netns(place) => dhcp::servers(place, self.name, self.patience).await?,
            Vantage::Exec(guest) => {
                // The lease that it has already is offered again, and nothing is done with it. A busy machine's emulated
                // guest may take seconds to see an answer.
                let command = format!("busybox udhcpc -i {} -n -q -t 5 -T 2 -s /bin/true", self.name);
                let said = sh(guest, &format!("{command} 2>&1")).await?;
                said.lines().filter_map(lease_of).collect()
            }
        };
        let mut probe = self.blank("dhcp", None);
        let Some(first) = servers.first().copied() else {
            "none".clone_into(&mut probe.to);
            "nobody offers a lease".clone_into(&mut probe.detail);
            // The same question on the LAN, where somebody is known to answer.
            let lan = Place::Netns(world::LAN_NETNS.to_owned());
            match dhcp::servers(&lan, world::HOST_LINK, PATIENCE * 2).await?.first() {
                Some(server) => probe.control = Some(format!("on the LAN {server} offers one")),
                None => probe.doubt("nobody offers a lease on the LAN either"),
            }
            return Ok(probe);
        };
        let words: Vec<String> = servers.iter().map(ToString::to_string).collect();
        probe.to = match (servers.len(), world::is_router(first.into())) {
            (1, true) => "lan".to_owned(),
            (1, false) if self.near(first.into()) => "server".to_owned(),
            (1, false) => format!("stranger {first}"),
            _ => format!("several: {}", words.join(" ")),
        };
        probe.address = Some(first.into());
        probe.verdict = Verdict::Reachable;
        probe.detail = format!("a lease is offered by {}", words.join(" and "));
        Ok(probe)
    }

    /// Whether the guest finds an address of the host, one of each family; `host` are all that it has.
    pub(super) async fn find_host(&self, host: &[IpAddr]) -> Result<Vec<Probe>> {
        let of = |v4: bool| host.iter().copied().find(|ip| ip.is_ipv4() == v4 && self.near(*ip));
        let candidates: Vec<IpAddr> = [of(true), of(false)].into_iter().flatten().collect();
        if candidates.is_empty() {
            let words: Vec<String> = host.iter().map(ToString::to_string).collect();
            let mut probe = self.blank("neighbour", None);
            "the host has no address in the guest's subnets".clone_into(&mut probe.detail);
            probe.control = Some(format!("the host's addresses are {}", words.join(", ")));
            return Ok(vec![probe]);
        }
        let mut probes = Vec::new();
        for address in candidates {
            let mut probe = self.blank("neighbour", Some(address));
            let known = self.neighbours(address).await?;
            let others = known.iter().find(|ip| ip.is_ipv4() == address.is_ipv4());
            if known.contains(&address) {
                probe.verdict = Verdict::Reachable;
                "the host answers for it".clone_into(&mut probe.detail);
            } else if let Some(other) = others {
                "nobody answers for it".clone_into(&mut probe.detail);
                probe.control = Some(format!("{} finds {other} on the same link", self.guest));
            } else {
                probe.doubt("nobody answers for it, nor for any other address");
            }
            probes.push(probe);
        }
        Ok(probes)
    }

    /// Addresses that somebody answers for, after this one was asked for.
    async fn neighbours(&self, address: IpAddr) -> Result<Vec<IpAddr>> {
        match &self.vantage {
            Vantage::Netns(place) => {
                let links = Links::default();
                resolve(&links, place, address).await?;
                known(&links, place).await
            }
            Vantage::Exec(guest) => {
                let script = format!("ping -c 2 -W 3 {address} >/dev/null 2>&1; ip neigh show");
                Ok(sh(guest, &script).await?.lines().filter_map(neighbour_of).collect())
            }
        }
    }

    /// Gives a guest that has none a default route of a family: by `via`, else as if everybody were on the link.
    pub(super) async fn give_default_route(&self, v4: bool, via: Option<IpAddr>) -> Result<()> {
        match &self.vantage {
            Vantage::Netns(place) => {
                let links = Links::default();
                if links.has_default_route(place, v4).await? {
                    return Ok(());
                }
                links.add_default_route(place, self.name, v4, via).await
            }
            Vantage::Exec(guest) => {
                let ip = if v4 { "ip -f inet" } else { "ip -f inet6" };
                let by = via.map(|via| format!("via {via} ")).unwrap_or_default();
                let add = format!("{ip} route add default {by}dev {}", self.name);
                sh(guest, &format!("{ip} route show | grep -q ^default || {add}")).await?;
                Ok(())
            }
        }
    }

    /// Lets nothing remain of an earlier measurement's unanswered questions.
    pub(super) async fn forget_unanswered(&self) -> Result<()> {
        match &self.vantage {
            Vantage::Netns(place) => Links::default().forget_unanswered(place).await,
            Vantage::Exec(guest) => {
                sh(guest, &format!("ip neigh flush dev {}", self.name)).await?;
                Ok(())
            }
        }
    }

    fn blank(&self, service: &str, address: Option<IpAddr>) -> Probe {
        Probe {
            from: self.guest.to_owned(),
            to: HOST.to_owned(),
            service: service.to_owned(),
            through: None,
            family: match (service, address) {
                ("dhcp", _) => Some(4),
                (_, Some(address)) => Some(if address.is_ipv4() { 4 } else { 6 }),
                _ => None,
            },
            address,
            verdict: Verdict::Blocked,
            detail: String::new(),
            control: None,
            rtt_us: None,
        }
    }
}

impl Probe {
    fn doubt(&mut self, why: &str) {
        self.verdict = Verdict::Inconclusive;
        why.clone_into(&mut self.detail);
    }
}

async fn known(links: &Links, place: &Place) -> Result<Vec<IpAddr>> {
    Ok(links.neighbours(place).await?.iter().map(|neighbour| neighbour.address).collect())
}

/// Waits until somebody says that this address is theirs, or for as long as is worth waiting. Asked by a datagram, which
/// goes the way of the guest's other packets.
async fn resolve(links: &Links, place: &Place, address: IpAddr) -> Result<()> {
    let began = Instant::now();
    let mut asked = None::<Instant>;
    while !known(links, place).await?.contains(&address) && began.elapsed() < PATIENCE {
        if asked.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
            asked = Some(Instant::now());
            netns::within(place, move || {
                let any: IpAddr = match address {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                // Without a route there is nothing to be sent, and nobody to be found.
                let socket = UdpSocket::bind((any, 0));
                let _ = socket.and_then(|socket| socket.send_to(&[], (address, DISCARD)));
            })?;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

/// Runs a script inside a VM.
async fn sh(guest: &Arc<dyn Exec>, script: &str) -> Result<String> {
    let argv = ["sh", "-c", script].map(str::to_owned);
    let done = guest.exec(&argv, COMMAND).await?;
    // Neither a lease nor a neighbour that is not there is a failure; a program that is not there is.
    if done.status == 127 {
        return Err(Error::failed("a guest lacks a program to be measured with").caused_by(done.stderr));
    }
    Ok(done.stdout)
}

/// The server in `udhcpc: lease of 10.0.2.15 obtained from 10.0.2.2, lease time 600`.
fn lease_of(line: &str) -> Option<Ipv4Addr> {
    let (_, rest) = line.split_once(" obtained from ")?;
    rest.split([',', ' ']).next()?.parse().ok()
}

/// The address in `10.0.2.2 dev eth0 lladdr 52:54:00:00:00:01 REACHABLE`, if somebody answered for it.
fn neighbour_of(line: &str) -> Option<IpAddr> {
    let mut words = line.split_ascii_whitespace();
    let address = words.next()?.parse().ok()?;
    let rest: Vec<&str> = words.collect();
    let answered = rest.contains(&"lladdr") && !rest.iter().any(|w| matches!(*w, "FAILED" | "INCOMPLETE"));
    answered.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_busybox_says_is_understood() {
        let said = "udhcpc: lease of 10.0.2.15 obtained from 10.0.2.2, lease time 600";
        assert_eq!(lease_of(said), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(lease_of("udhcpc: no lease, failing"), None);
        let there = "10.0.2.2 dev eth0 lladdr 52:54:00:00:00:01 ref 1 used 0/0/0 probes 1 REACHABLE";
        assert_eq!(neighbour_of(there), Some([10, 0, 2, 2].into()));
        assert_eq!(neighbour_of("10.0.2.9 dev eth0  used 0/0/0 probes 6 FAILED"), None);
        assert_eq!(neighbour_of("10.0.2.9 dev eth0 INCOMPLETE"), None);
    }
}
