//! Asks everything of one lab. Runs inside the lab's sandbox, where the host, the LAN and the outside are its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join};
use ipnetwork::IpNetwork;

use super::cases::Case;
use super::plan::{self, Addresses, FORWARD, HOST_SERVICES, LOOPBACK, LOOPBACK_SERVICES, Question};
use super::verdict;
use super::{Outcome, Probe, Property, Row};
use crate::error::{Error, Result};
use crate::host::lab::LabHost;
use crate::host::neighbours::Neighbours;
use crate::mode::{Egress, Uplink};
use crate::probe::{self, Endpoints, LabEndpoints, Measured, Options, Vantage, Verdict, dhcp};
use crate::resource::Place;
use crate::sandbox::{self, world};
use crate::serve;
use crate::topology::{Addressing, Endpoint, Expectation, Forward, Service, Topology};

/// How long one waits for an offer of a lease, and for an answer about an address.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Probes under way at a time: most only wait.
const CONCURRENCY: usize = 128;

/// What the host is called in its answers.
const HOST: &str = "host";

/// Measures a lab that shows this case.
///
/// # Errors
/// When measuring is impossible; what cannot be proven is a cell that says so.
pub async fn measure(case: &Case, topology: &Topology, host: &LabHost) -> Result<Row> {
    if !sandbox::inside() {
        return Err(Error::failed("only a lab in a sandbox can be compared")
            .hint("bring it up with `netloom up --sandbox`"));
    }
    let endpoints = LabEndpoints::new(topology, host).await?;
    let addresses = addresses(topology, &endpoints).await?;
    // Bound before anything is asked: silence must not mean that a server was still starting.
    let _everywhere = serve::start(HOST, &HOST_SERVICES, &serve::EVERYWHERE)?;
    let _inner = serve::start(HOST, &LOOPBACK_SERVICES, &[Ipv4Addr::LOCALHOST.into()])?;
    let stage = Stage { inner: &endpoints, topology, addresses: &addresses };
    stage.give_default_routes().await?;
    stage.forget_unanswered().await?;
    if case.state.is_some_and(|state| state.hairpin) {
        world::set_hairpin(true).await?;
    }

    stage.ask(plan::controls(topology, &addresses)).await?;
    // What is promised to leave does so although nobody beyond the host knows the guests' subnets...
    let (first, rest): (Vec<_>, Vec<_>) =
        plan::questions(case, topology, &addresses).into_iter().partition(|question| question.alone);
    let behind = stage.behind()?;
    world::remove_return_routes(&behind).await?;
    let mut probes = stage.answers(first).await?;
    // ... and what is promised not to come in does not, although everybody knows the way.
    world::add_return_routes_via(&behind, &addresses.outer).await?;
    let (answers, links) = try_join(stage.answers(rest), stage.on_the_link()).await?;
    world::remove_return_routes(&behind).await?;
    probes.extend(answers);
    probes.extend(links);

    let optional = optional_dhcp(topology);
    let columns = Property::ALL.into_iter().filter(|p| *p != Property::Loopback || plan::loops(topology));
    let cells = columns.map(|property| {
        let own = probes.iter().filter(|(p, _)| *p == property).map(|(_, probe)| probe.clone()).collect();
        verdict::cell(case, property, optional, own)
    });
    Ok(Row { outcome: Outcome::Measured, cells: cells.collect(), ..case.row() })
}

/// Who hands out addresses where the contract leaves it to the file.
fn optional_dhcp(topology: &Topology) -> &'static str {
    let network = topology.networks.values().next();
    match network {
        Some(network) if network.dhcp.is_some() => "server",
        Some(network) if network.wiring.uplink != Uplink::None => "lan",
        _ => "none",
    }
}

fn probe_of(one: &Measured) -> Probe {
    Probe {
        from: one.from.clone(),
        to: one.to.clone(),
        service: one.service.to_string(),
        through: one.via.as_ref().map(|via| via.split(' ').next().unwrap_or_default().to_owned()),
        family: one.family,
        address: one.address,
        verdict: one.verdict,
        detail: one.detail.clone(),
        control: one.control.clone(),
        rtt_us: one.rtt_us,
    }
}

/// Subnets that a guest is on.
fn subnets(endpoints: &LabEndpoints<'_>, guest: &str) -> Result<Vec<IpNetwork>> {
    Ok(endpoints
        .interfaces(guest)?
        .iter()
        .flat_map(|interface| interface.addresses.iter().copied())
        .collect())
}

/// One of each family.
fn one_each(list: impl Iterator<Item = IpAddr> + Clone) -> Vec<IpAddr> {
    let of = |v4: bool| list.clone().find(move |ip| ip.is_ipv4() == v4);
    [of(true), of(false)].into_iter().flatten().collect()
}

async fn addresses(topology: &Topology, endpoints: &LabEndpoints<'_>) -> Result<Addresses> {
    let mut guests = Vec::new();
    let mut near: Vec<IpNetwork> = Vec::new();
    for name in topology.guests.keys() {
        let own = subnets(endpoints, name)?;
        guests.push((name.clone(), one_each(own.iter().map(IpNetwork::ip))));
        near.extend(own);
    }
    // The host's address on the network, if the kernel knows any; else the one the whole LAN knows.
    let shared = endpoints.host().iter().copied().filter(|ip| near.iter().any(|net| net.contains(*ip)));
    let host = one_each(shared.chain(world::HOST_ADDRESSES));
    let networks = || topology.networks.values();
    let gateway = one_each(networks().flat_map(|network| &network.gateway).map(IpNetwork::ip));
    let external = networks().filter_map(|network| network.external.as_ref());
    let external = external.flat_map(|external| &external.addresses).map(IpNetwork::ip);
    let outer = one_each(external.chain(world::HOST_ADDRESSES));
    let neighbour = endpoints.addresses(&Endpoint::Lan, None).await?.into_iter();
    let beside = neighbour.filter(|ip| near.iter().any(|net| net.contains(*ip)));
    let lan = one_each(beside.chain(world::LAN_ADDRESSES));
    Ok(Addresses { guests, host, gateway, outer, lan })
}

/// The guest's first interface that runs IP.
fn link<'a>(topology: &'a Topology, guest: &str) -> Result<&'a str> {
    let guest = topology.guests.get(guest);
    let mut interfaces = guest.into_iter().flat_map(|guest| &guest.nics).flat_map(|nic| &nic.interfaces);
    let found = interfaces.find(|interface| interface.addressing != Addressing::None);
    found.map(|interface| interface.name.as_str()).ok_or_else(|| Error::failed("a guest has no interface"))
}

/// The lab's endpoints, each at the addresses where it is looked for.
struct Stage<'a> {
    inner: &'a LabEndpoints<'a>,
    topology: &'a Topology,
    addresses: &'a Addresses,
}

impl Stage<'_> {
    fn forward(&self, via: Option<&str>) -> Option<&Forward> {
        let number: usize = via?.strip_prefix(FORWARD)?.parse().ok()?;
        self.topology.networks.values().flat_map(|network| &network.forwards).nth(number)
    }

    /// Asks what a file could ask.
    async fn ask(&self, expect: Vec<Expectation>) -> Result<Vec<Measured>> {
        let asked = Topology { expect, ..self.topology.clone() };
        let options = Options { concurrency: CONCURRENCY, ..Options::default() };
        probe::evaluate(&asked, self, &options).await
    }

    async fn answers(&self, questions: Vec<Question>) -> Result<Vec<(Property, Probe)>> {
        let expect = questions.iter().map(|question| question.expectation.clone()).collect();
        let measured = self.ask(expect).await?;
        Ok(measured
            .iter()
            .filter_map(|one| Some((questions.get(one.index)?.property, probe_of(one))))
            .collect())
    }

    /// The guests' subnets that only the host (or the network's own router) knows: those of networks that are routed as
    /// they are belong to what their contract asks of the LAN, and are known there already.
    fn behind(&self) -> Result<Vec<IpNetwork>> {
        let mut networks = self.topology.networks.values();
        if networks.any(|network| network.wiring.egress == Egress::Routed) {
            return Ok(Vec::new());
        }
        let lan = world::subnets();
        let mut behind = Vec::new();
        for name in self.topology.guests.keys() {
            let own = subnets(self.inner, name)?.into_iter();
            behind.extend(own.filter(|own| !lan.iter().any(|net| net.contains(own.ip()))));
        }
        behind.sort_by_key(|net| (net.network(), net.prefix()));
        behind.dedup_by_key(|net| (net.network(), net.prefix()));
        Ok(behind)
    }

    /// Lets nothing remain of an earlier measurement's unanswered probes.
    async fn forget_unanswered(&self) -> Result<()> {
        let guests = self.topology.guests.keys().map(|guest| Endpoint::Guest(guest.clone()));
        for endpoint in guests.chain([Endpoint::Host, Endpoint::Lan, Endpoint::Outside]) {
            if let Some(Vantage::Netns(place)) = self.vantage(&endpoint).await? {
                Neighbours::of(&place)?.forget_unanswered().await?;
            }
        }
        Neighbours::of(&Place::Netns(world::ROUTER_NETNS.to_owned()))?.forget_unanswered().await
    }

    /// Gives guests that have none a default route, by the host where it has an address on their link, else as if
    /// everybody were there: so that it is the network that refuses, and not their own lack of routes.
    async fn give_default_routes(&self) -> Result<()> {
        for (guest, own) in &self.addresses.guests {
            let place = self.vantage(&Endpoint::Guest(guest.clone())).await?;
            let Some(Vantage::Netns(place)) = place else { continue };
            let neighbours = Neighbours::of(&place)?;
            let link = link(self.topology, guest)?;
            let near = subnets(self.inner, guest)?;
            for address in own {
                let v4 = address.is_ipv4();
                if neighbours.has_default_route(v4).await? {
                    continue;
                }
                let on_link = |ip: &&IpAddr| ip.is_ipv4() == v4 && near.iter().any(|net| net.contains(**ip));
                let via = self.addresses.host.iter().find(on_link).copied();
                neighbours.add_default_route(link, v4, via).await?;
            }
        }
        Ok(())
    }

    /// What is not asked by an expectation: leases and neighbours.
    async fn on_the_link(&self) -> Result<Vec<(Property, Probe)>> {
        let guests = self.topology.guests.keys();
        let each = join_all(guests.map(|guest| async move {
            let Some(Vantage::Netns(place)) = self.inner.vantage(&Endpoint::Guest(guest.clone())).await?
            else {
                return Ok(Vec::new());
            };
            let (lease, found) = try_join(self.lease(guest, &place), self.find_host(guest, &place)).await?;
            let found = found.into_iter().map(|probe| (Property::HostAddress, probe));
            Ok::<_, Error>(std::iter::once((Property::Dhcp, lease)).chain(found).collect())
        }));
        let lists: Vec<Vec<_>> = each.await.into_iter().collect::<Result<_>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    async fn lease(&self, guest: &str, place: &Place) -> Result<Probe> {
        let servers = dhcp::servers(place, link(self.topology, guest)?, PATIENCE).await?;
        let mut probe = Probe {
            from: guest.to_owned(),
            to: "none".to_owned(),
            service: "dhcp".to_owned(),
            through: None,
            family: Some(4),
            address: None,
            verdict: Verdict::Blocked,
            detail: "nobody offers a lease".to_owned(),
            control: None,
            rtt_us: None,
        };
        if let Some(first) = servers.first().copied() {
            let words: Vec<String> = servers.iter().map(ToString::to_string).collect();
            let near = subnets(self.inner, guest)?.iter().any(|net| net.contains(first.into()));
            probe.to = match (servers.len(), world::is_router(first.into())) {
                (1, true) => "lan".to_owned(),
                (1, false) if near => "server".to_owned(),
                (1, false) => format!("stranger {first}"),
                _ => format!("several: {}", words.join(" ")),
            };
            probe.address = Some(first.into());
            probe.verdict = Verdict::Reachable;
            probe.detail = format!("a lease is offered by {}", words.join(" and "));
            return Ok(probe);
        }
        // The same question on the LAN, where somebody is known to answer.
        let lan = Place::Netns(world::LAN_NETNS.to_owned());
        match dhcp::servers(&lan, world::HOST_LINK, PATIENCE * 2).await?.first() {
            Some(server) => probe.control = Some(format!("on the LAN {server} offers one")),
            None => {
                probe.verdict = Verdict::Inconclusive;
                probe.detail = "nobody offers a lease on the LAN either".to_owned();
            }
        }
        Ok(probe)
    }

    /// Whether the guest finds an address of the host on its own link.
    async fn find_host(&self, guest: &str, place: &Place) -> Result<Vec<Probe>> {
        let own = subnets(self.inner, guest)?;
        let near = |ip: &&IpAddr| own.iter().any(|net| net.contains(**ip));
        let candidates = one_each(self.inner.host().iter().filter(near).copied());
        let blank = |address: Option<IpAddr>, verdict, detail: String| Probe {
            from: guest.to_owned(),
            to: HOST.to_owned(),
            service: "neighbour".to_owned(),
            through: None,
            family: address.map(|ip| if ip.is_ipv4() { 4 } else { 6 }),
            address,
            verdict,
            detail,
            control: None,
            rtt_us: None,
        };
        if candidates.is_empty() {
            let host: Vec<String> = self.inner.host().iter().map(ToString::to_string).collect();
            let mut probe =
                blank(None, Verdict::Blocked, "the host has no address in the guest's subnets".into());
            probe.control = Some(format!("the host's addresses are {}", host.join(", ")));
            return Ok(vec![probe]);
        }
        let neighbours = Neighbours::of(place)?;
        let mut probes = Vec::new();
        for address in candidates {
            if neighbours.resolves(address, PATIENCE).await? {
                probes.push(blank(Some(address), Verdict::Reachable, "the host answers for it".to_owned()));
                continue;
            }
            let others = neighbours.known().await?;
            let other = others.iter().find(|ip| ip.is_ipv4() == address.is_ipv4());
            let mut probe = blank(Some(address), Verdict::Blocked, "nobody answers for it".to_owned());
            match other {
                Some(other) => probe.control = Some(format!("{guest} finds {other} on the same link")),
                None => {
                    probe.verdict = Verdict::Inconclusive;
                    probe.detail = "nobody answers for it, nor for any other address".to_owned();
                }
            }
            probes.push(probe);
        }
        Ok(probes)
    }
}

#[async_trait]
impl Endpoints for Stage<'_> {
    async fn vantage(&self, endpoint: &Endpoint) -> Result<Option<Vantage>> {
        self.inner.vantage(endpoint).await
    }

    async fn addresses(&self, endpoint: &Endpoint, via: Option<&str>) -> Result<Vec<IpAddr>> {
        if let Some(forward) = self.forward(via) {
            return Ok(self.addresses.outer(forward).into_iter().collect());
        }
        Ok(match endpoint {
            Endpoint::Host if via == Some(LOOPBACK) => self.addresses.gateway.clone(),
            Endpoint::Host => self.addresses.host.clone(),
            Endpoint::Lan => self.addresses.lan.clone(),
            Endpoint::Guest(name) => self.addresses.of(name).to_vec(),
            other => self.inner.addresses(other, None).await?,
        })
    }

    fn answerer(&self, to: &Endpoint, via: Option<&str>, service: Service) -> Option<String> {
        match to {
            // What the guest answers at a forward's outer address names the guest.
            Endpoint::Guest(name) if self.forward(via).is_some() => {
                Some(format!("{}/{name}", self.topology.lab))
            }
            Endpoint::Host if HOST_SERVICES.contains(&service) || LOOPBACK_SERVICES.contains(&service) => {
                Some(HOST.to_owned())
            }
            Endpoint::Lan => Some(world::LAN_NETNS.to_owned()),
            Endpoint::Outside => Some(world::OUTSIDE_NETNS.to_owned()),
            _ => None,
        }
    }

    fn proof(
        &self,
        to: &Endpoint,
        via: Option<&str>,
        _address: IpAddr,
        service: Service,
    ) -> Option<(Endpoint, IpAddr, Service)> {
        if let Some(forward) = self.forward(via) {
            let inner = Service { protocol: forward.protocol, port: forward.port };
            return Some((to.clone(), forward.target, inner));
        }
        (via == Some(LOOPBACK)).then(|| (Endpoint::Host, Ipv4Addr::LOCALHOST.into(), service))
    }
}
