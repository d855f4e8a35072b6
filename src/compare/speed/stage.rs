//! Measures a lab's pairs one after the other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::cases::Case;
use super::super::measure::{self, Stage, Waits};
use super::super::plan::Addresses;
use super::{PORT, Pair, Rtt, Speed, Throughput, iperf, pairs, rtt};
use crate::error::{Error, Result};
use crate::host::lab::LabHost;
use crate::mode::Promise;
use crate::mode::example::GUESTS;
use crate::probe::{Endpoints, LabEndpoints, Vantage};
use crate::sandbox::{self, world};
use crate::topology::{Endpoint, Protocol, Topology};

/// How long all pings of a pair may take.
const PINGS: Duration = Duration::from_secs(40);

/// Measures a lab that shows this case, which must not be measured otherwise at the same time.
///
/// # Errors
/// When measuring is impossible; a pair that cannot be measured says so.
pub async fn measure(case: &Case, topology: &Topology, host: &LabHost) -> Result<Vec<Speed>> {
    if !sandbox::inside() {
        return Err(Error::failed("only a lab in a sandbox can be compared"));
    }
    let endpoints = LabEndpoints::new(topology, host).await?;
    let addresses = measure::addresses(topology, &endpoints).await?;
    let stage = Stage { inner: &endpoints, topology, addresses: &addresses, waits: Waits::default() };
    stage.prepare().await?;
    if case.state.is_some_and(|state| state.hairpin) {
        world::set_hairpin(true)?;
    }
    let behind = stage.behind()?;
    let mut all = Vec::new();
    for (pair, promise) in pairs(case) {
        // What may come in is let in by the network, and the LAN must know the way to it.
        let comes_in = pair == Pair::L2g && promise == Promise::Pass;
        if comes_in {
            world::add_return_routes_via(&behind, &addresses.outer).await?;
        }
        let ends = Ends::new(pair, promise, topology, &addresses);
        all.push(ends.measured(&endpoints).await);
        if comes_in {
            world::remove_return_routes(&behind).await?;
        }
    }
    Ok(all)
}

/// Two ends, and where the second one is found.
struct Ends {
    blank: Speed,
    from: Endpoint,
    to: Endpoint,
    /// Where iperf3's server is.
    there: Option<SocketAddr>,
}

impl Ends {
    fn new(pair: Pair, promise: Promise, topology: &Topology, addresses: &Addresses) -> Self {
        let [a, b] = GUESTS.map(|name| Endpoint::Guest(name.to_owned()));
        let own = addresses.of(GUESTS[0]);
        let outside = world::OUTSIDE_ADDRESSES;
        let (from, to, there): (_, _, &[IpAddr]) = match pair {
            Pair::G2g => (a, b, addresses.of(GUESTS[1])),
            Pair::G2h => (a, Endpoint::Host, &addresses.host),
            Pair::H2g => (Endpoint::Host, a, own),
            Pair::G2l => (a, Endpoint::Lan, &addresses.lan),
            Pair::L2g => (Endpoint::Lan, a, own),
            Pair::G2o => (a, Endpoint::Outside, &outside),
        };
        let blank = Speed::without(pair, promise, "");
        if promise == Promise::Forward {
            return Self { blank, from, to, there: forwarded(topology, addresses) };
        }
        // IPv4, where both have it.
        let both = |ip: &&IpAddr| own.iter().any(|other| other.is_ipv4() == ip.is_ipv4());
        let address = there.iter().filter(both).min_by_key(|ip| ip.is_ipv6());
        let there = address.map(|ip| SocketAddr::new(*ip, PORT));
        Self { blank, from, to, there }
    }

    async fn measured(self, endpoints: &LabEndpoints<'_>) -> Speed {
        let vantages = async {
            let none = || Error::failed("nothing can be started there");
            let from = endpoints.vantage(&self.from).await?.ok_or_else(none)?;
            let to = endpoints.vantage(&self.to).await?.ok_or_else(none)?;
            Ok::<_, Error>((from, to))
        };
        let (rtt, throughput) = match vantages.await {
            Ok((from, to)) => self.both(&from, &to).await,
            Err(error) => (Err(said(&error)), Err(said(&error))),
        };
        Speed {
            address: self.there.map(|there| there.ip()),
            throughput_reason: throughput.as_ref().err().cloned(),
            throughput: throughput.ok(),
            rtt_reason: rtt.as_ref().err().cloned(),
            rtt: rtt.ok(),
            ..self.blank
        }
    }

    async fn both(&self, from: &Vantage, to: &Vantage) -> (Result<Rtt, String>, Result<Throughput, String>) {
        let Some(there) = self.there else {
            let why = self.nowhere();
            return (Err(why.clone()), Err(why));
        };
        let send = async || iperf::send((from, to), there).await.map_err(|error| said(&error));
        if self.blank.through.is_none() {
            let rtt = ping(from, there.ip()).await.map_err(|error| said(&error));
            return (rtt, send().await);
        }
        // First, since it proves that the forward leads to the guest: else it would be somebody else who refuses.
        let throughput = send().await;
        let rtt = match (from, &throughput) {
            (_, Err(_)) => Err("what is not forwarded is refused by somebody else".to_owned()),
            (Vantage::Netns(place), _) => rtt::refusals(place, there).await.map_err(|error| said(&error)),
            (Vantage::Exec(_), _) => Err("connections are timed from namespaces alone".to_owned()),
        };
        (rtt, throughput)
    }

    /// Why there is no address to connect to.
    fn nowhere(&self) -> String {
        let (from, to) = (&self.blank.from, &self.blank.to);
        match self.blank.through {
            Some(_) => format!("no port is forwarded to port {PORT} of {to}"),
            None => format!("{to} has no address of a family that {from} has"),
        }
    }
}

async fn ping(from: &Vantage, address: IpAddr) -> Result<Rtt> {
    let done = iperf::command(from, &rtt::ping(address), PINGS).await?;
    rtt::read_ping(&done.stdout, &done.stderr)
}

/// An error and its causes in one line.
fn said(error: &Error) -> String {
    let causes = error.causes().iter().map(String::as_str);
    std::iter::once(error.message()).chain(causes).collect::<Vec<_>>().join(": ")
}

/// Where the first guest's iperf3 is reached from outside.
fn forwarded(topology: &Topology, addresses: &Addresses) -> Option<SocketAddr> {
    let forwards = topology.networks.values().flat_map(|network| &network.forwards);
    let mut wanted = forwards.filter(|forward| {
        let owner = addresses.owner(forward.target);
        forward.protocol == Protocol::Tcp && forward.port == PORT && owner == Some(GUESTS[0])
    });
    wanted.find_map(|forward| Some(SocketAddr::new(addresses.outer(forward)?, forward.ports.0)))
}
