//! Asks everything of one lab. Runs inside the lab's sandbox, where the host, the LAN and the outside are its own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{try_join, try_join_all};
use ipnetwork::IpNetwork;

use super::cases::Case;
use super::link::{HOST, Link, PATIENCE};
use super::plan::{self, Addresses, FORWARD, HOST_SERVICES, LOOPBACK, LOOPBACK_SERVICES, Question};
use super::verdict;
use super::{Outcome, Probe, Property, Row};
use crate::error::{Error, Result};
use crate::host::lab::LabHost;
use crate::host::links::Links;
use crate::mode::{Egress, Uplink};
use crate::probe::{self, Endpoints, LabEndpoints, Measured, Options, Vantage};
use crate::resource::Place;
use crate::sandbox::{self, world};
use crate::serve;
use crate::topology::{Addressing, Endpoint, Expectation, Forward, GuestKind, Service, Topology};

/// A VM under emulation answers one after the other, and slowly when the machine is busy.
const WITH_VMS: Options =
    Options { patience: Duration::from_secs(30), wait: Duration::from_secs(3), concurrency: 24 };

/// How long is waited for what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The usual time for an offer of a lease, to a namespace.
    pub leases: Duration,
    /// How many times the usual time for an answer.
    pub times: u32,
}

impl Default for Waits {
    fn default() -> Self {
        Self { leases: PATIENCE, times: 1 }
    }
}

impl Waits {
    /// For a second look, at what was not as promised: a machine that was too slow for the first is given time.
    pub const SECOND_LOOK: Self = Self { leases: PATIENCE, times: 3 };
}

/// Measures a lab that shows this case.
///
/// # Errors
/// When measuring is impossible; what cannot be proven is a cell that says so.
pub async fn measure(case: &Case, topology: &Topology, host: &LabHost, waits: Waits) -> Result<Row> {
    if !sandbox::inside() {
        return Err(Error::failed("only a lab in a sandbox can be compared")
            .hint("bring it up with `netloom up --sandbox`"));
    }
    let endpoints = LabEndpoints::new(topology, host).await?;
    let addresses = addresses(topology, &endpoints).await?;
    // Bound before anything is asked: silence must not mean that a server was still starting.
    let _everywhere = serve::start(HOST, &HOST_SERVICES, &serve::EVERYWHERE)?;
    let _inner = serve::start(HOST, &LOOPBACK_SERVICES, &[Ipv4Addr::LOCALHOST.into()])?;
    let stage = Stage { inner: &endpoints, topology, addresses: &addresses, waits };
    stage.prepare().await?;
    if case.state.is_some_and(|state| state.hairpin) {
        world::set_hairpin(true)?;
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

pub(super) async fn addresses(topology: &Topology, endpoints: &LabEndpoints<'_>) -> Result<Addresses> {
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
pub(super) struct Stage<'a> {
    pub(super) inner: &'a LabEndpoints<'a>,
    pub(super) topology: &'a Topology,
    pub(super) addresses: &'a Addresses,
    /// How long to wait.
    pub(super) waits: Waits,
}

impl Stage<'_> {
    fn forward(&self, via: Option<&str>) -> Option<&Forward> {
        let number: usize = via?.strip_prefix(FORWARD)?.parse().ok()?;
        self.topology.networks.values().flat_map(|network| &network.forwards).nth(number)
    }

    /// Asks what a file could ask.
    async fn ask(&self, expect: Vec<Expectation>) -> Result<Vec<Measured>> {
        let asked = Topology { expect, ..self.topology.clone() };
        let vms = self.topology.guests.values().any(|guest| guest.kind == GuestKind::Vm);
        let mut options = Options::default();
        if vms {
            options = WITH_VMS;
        }
        options.patience *= self.waits.times;
        options.wait *= self.waits.times;
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
    pub(super) fn behind(&self) -> Result<Vec<IpNetwork>> {
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

    async fn links(&self) -> Result<Vec<Link<'_>>> {
        let mut links = Vec::new();
        for (guest, _) in &self.addresses.guests {
            let vantage = self.vantage(&Endpoint::Guest(guest.clone())).await?;
            let vantage =
                vantage.ok_or_else(|| Error::failed(format!("guest `{guest}` cannot be entered")))?;
            let name = link(self.topology, guest)?;
            let (own, patience) = (subnets(self.inner, guest)?, self.waits.leases * self.waits.times);
            links.push(Link { guest, name, own, vantage, patience });
        }
        Ok(links)
    }

    /// Guests that have no default route get one, by the host where it has an address on their link: so that it is the
    /// network that refuses, and not their own lack of routes. Nothing remains of an earlier measurement.
    pub(super) async fn prepare(&self) -> Result<()> {
        let links = self.links().await?;
        let each = links.iter().map(|link| async move {
            link.forget_unanswered().await?;
            for v4 in [true, false] {
                let has = |list: &[IpAddr]| list.iter().copied().find(|ip| ip.is_ipv4() == v4);
                if has(self.addresses.of(link.guest)).is_some() {
                    let via = has(&self.addresses.host).filter(|ip| link.own.iter().any(|n| n.contains(*ip)));
                    link.give_default_route(v4, via).await?;
                }
            }
            Ok::<_, Error>(())
        });
        try_join_all(each).await?;
        for place in [world::LAN_NETNS, world::OUTSIDE_NETNS, world::ROUTER_NETNS] {
            Links::default().forget_unanswered(&Place::Netns(place.to_owned())).await?;
        }
        Links::default().forget_unanswered(&Place::Host).await
    }

    /// What is not asked by an expectation: leases and neighbours.
    async fn on_the_link(&self) -> Result<Vec<(Property, Probe)>> {
        let links = self.links().await?;
        let host = self.inner.host();
        let each = links.iter().map(|link| try_join(link.lease(), link.find_host(host)));
        let mut out = Vec::new();
        for (lease, found) in try_join_all(each).await? {
            out.push((Property::Dhcp, lease));
            out.extend(found.into_iter().map(|probe| (Property::HostAddress, probe)));
        }
        Ok(out)
    }
}

#[async_trait]
impl Endpoints for Stage<'_> {
    async fn vantage(&self, endpoint: &Endpoint) -> Result<Option<Vantage>> {
        self.inner.vantage(endpoint).await
    }

    async fn forget_neighbours(&self, endpoints: &BTreeSet<Endpoint>) -> Result<()> {
        self.inner.forget_neighbours(endpoints).await
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
