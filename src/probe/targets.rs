//! What is asked for an expectation: which addresses, over which families, and who should answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::bench::{Bench, family_word};
use super::outcome::{Outcome, Patience, Question, Silence};
use crate::error::Result;
use crate::topology::{
    Addressing, Endpoint, Expectation, ExpectedVerdict, Forward, Guest, Service, Topology, ZoneRef,
};

/// One expectation over one family.
pub(super) struct Trial<'a> {
    pub(super) index: usize,
    pub(super) wanted: &'a Expectation,
    /// `true` for IPv4; `None` when nothing can be asked.
    pub(super) v4: Option<bool>,
    /// Addresses of the target.
    addresses: Vec<IpAddr>,
    /// Who may answer, as `LAB/GUEST`; empty when nobody is known to serve.
    pub(super) answerers: BTreeSet<String>,
    /// Why nothing can be asked.
    pub(super) impossible: Option<String>,
    /// What was asked and what came of it.
    pub(super) outcomes: Vec<(Question, Outcome)>,
}

/// The trials of one expectation.
pub(super) async fn trials<'a>(bench: &Bench<'a>, index: usize, wanted: &'a Expectation) -> Vec<Trial<'a>> {
    let trial = |v4, addresses, impossible| Trial {
        index,
        wanted,
        v4,
        addresses,
        answerers: match bench.endpoints.answerer(&wanted.to, wanted.via.as_deref(), wanted.service) {
            Some(label) => BTreeSet::from([label]),
            None => answerers(bench.topology, &wanted.to, wanted.service),
        },
        impossible,
        outcomes: Vec::new(),
    };
    let (targets, own) = match both_ends(bench, wanted).await {
        Ok(found) => found,
        Err(e) => {
            let fixed = wanted.family.map(|family| family == 4);
            return vec![trial(fixed, Vec::new(), Some(e.to_string()))];
        }
    };
    let families: Vec<bool> = match wanted.family {
        Some(family) => vec![family == 4],
        None => [true, false]
            .into_iter()
            .filter(|v4| [&targets, &own].iter().all(|list| list.iter().any(|ip| ip.is_ipv4() == *v4)))
            .filter(|v4| is_forwarded_over(bench.topology, wanted, *v4))
            .collect(),
    };
    if families.is_empty() {
        return vec![trial(None, Vec::new(), Some(no_common_family(wanted, &targets, &own)))];
    }
    let of = |v4: bool| {
        let list: Vec<IpAddr> = targets.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect();
        let lacks = |end: &Endpoint| Some(format!("{end} has no {} address", family_word(v4)));
        let impossible = if list.is_empty() {
            lacks(&wanted.to)
        } else if own.iter().all(|ip| ip.is_ipv4() != v4) {
            lacks(&wanted.from)
        } else {
            None
        };
        trial(Some(v4), list, impossible)
    };
    families.into_iter().map(of).collect()
}

/// Addresses to ask, and the source's own.
async fn both_ends(bench: &Bench<'_>, wanted: &Expectation) -> Result<(Vec<IpAddr>, Vec<IpAddr>)> {
    let endpoints = bench.endpoints;
    let own = endpoints.addresses(&wanted.from, None).await?;
    if let Endpoint::Address(address) = wanted.to {
        return Ok((vec![address], own));
    }
    if wanted.via.is_some() {
        return Ok((endpoints.addresses(&wanted.to, wanted.via.as_deref()).await?, own));
    }
    let mut targets = Vec::new();
    let (from, to) = (references(bench.topology, &wanted.from), references(bench.topology, &wanted.to));
    for shared in from.intersection(&to) {
        targets.extend(endpoints.addresses(&wanted.to, Some(shared)).await?);
    }
    if targets.is_empty() {
        targets = endpoints.addresses(&wanted.to, None).await?;
    }
    Ok((targets, own))
}

fn no_common_family(wanted: &Expectation, targets: &[IpAddr], own: &[IpAddr]) -> String {
    match (targets.first(), own.first()) {
        (None, _) => match &wanted.via {
            Some(via) => format!("{} has no address on {via}", wanted.to),
            None => format!("{} has no address", wanted.to),
        },
        (_, None) => format!("{} has no address", wanted.from),
        (Some(target), Some(own)) => format!(
            "{} has only {}, {} only {}",
            wanted.from,
            family_word(own.is_ipv4()),
            wanted.to,
            family_word(target.is_ipv4())
        ),
    }
}

/// Networks that an endpoint is on: `wan`, `core.lan`.
fn references(topology: &Topology, endpoint: &Endpoint) -> BTreeSet<String> {
    match endpoint {
        Endpoint::Guest(name) => {
            let guest = topology.guests.get(name);
            let interfaces = guest.into_iter().flat_map(|guest| &guest.nics).flat_map(|nic| &nic.interfaces);
            // The bare NIC of a trunk has no address, and its name stands for all its VLANs.
            let used = interfaces.filter(|interface| interface.addressing != Addressing::None);
            used.map(|interface| interface.reference.clone()).collect()
        }
        Endpoint::Host => {
            let networks = topology.networks.values();
            let of = |network: &crate::topology::Network| -> Vec<String> {
                let untagged = (!network.host.is_empty()).then(|| network.name.clone());
                let legs = network.vlans.iter().filter(|(_, vlan)| !vlan.host.is_empty());
                untagged.into_iter().chain(legs.map(|(vlan, _)| format!("{}.{vlan}", network.name))).collect()
            };
            networks.flat_map(of).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// Who answers for an endpoint: the guest that serves, or those that a firewall forwards the port to.
fn answerers(topology: &Topology, to: &Endpoint, service: Service) -> BTreeSet<String> {
    if *to == Endpoint::Host {
        let guests = host_forwards(topology, service).filter_map(|forward| forward.guest.as_ref());
        return guests.map(|guest| format!("{}/{guest}", topology.lab)).collect();
    }
    let Endpoint::Guest(name) = to else { return BTreeSet::new() };
    let Some(guest) = topology.guests.get(name) else { return BTreeSet::new() };
    let own = guest.serve.contains(&service).then_some(guest);
    let behind = forwarded_to(topology, guest, service).into_iter().map(|(guest, _, _)| guest);
    own.into_iter().chain(behind).map(|guest| format!("{}/{}", topology.lab, guest.name)).collect()
}

/// The networks' forwards of a port of the host.
fn host_forwards(topology: &Topology, service: Service) -> impl Iterator<Item = &Forward> {
    let networks = topology.networks.values().filter(|network| network.external.is_none());
    networks.flat_map(|network| &network.forwards).filter(move |forward| {
        forward.protocol == service.protocol && (forward.ports.0..=forward.ports.1).contains(&service.port)
    })
}

/// False for a service that a firewall, or the host, has only by port forwards, none of which is of this family.
fn is_forwarded_over(topology: &Topology, wanted: &Expectation, v4: bool) -> bool {
    if wanted.to == Endpoint::Host {
        let mut forwards = host_forwards(topology, wanted.service).peekable();
        return forwards.peek().is_none() || forwards.any(|forward| forward.target.is_ipv4() == v4);
    }
    let Endpoint::Guest(name) = &wanted.to else { return true };
    let Some(guest) = topology.guests.get(name) else { return true };
    let behind = forwarded_to(topology, guest, wanted.service);
    guest.serve.contains(&wanted.service)
        || behind.is_empty()
        || behind.iter().any(|(_, address, _)| address.is_ipv4() == v4)
}

/// Guests behind a firewall's port forwards of a service, with the address and the service there.
pub(super) fn forwarded_to<'a>(
    topology: &'a Topology,
    firewall: &Guest,
    service: Service,
) -> Vec<(&'a Guest, IpAddr, Service)> {
    let rules = firewall.firewall.iter().flat_map(|firewall| &firewall.rules);
    let forwards = rules
        .filter(|rule| rule.services.contains(&service) && !rule.from.contains(&ZoneRef::Itself))
        .flat_map(|rule| rule.forward.iter().map(|target| (rule.services.len(), target)));
    forwards
        .filter_map(|(services, target)| {
            let port = if services == 1 { target.port } else { service.port };
            let owner = topology.guests.values().find(|guest| has_address(guest, target.address))?;
            Some((owner, target.address, Service { protocol: service.protocol, port }))
        })
        .collect()
}

fn has_address(guest: &Guest, address: IpAddr) -> bool {
    guest.nics.iter().flat_map(|nic| &nic.interfaces).any(|interface| {
        matches!(&interface.addressing, Addressing::Static(list) if list.iter().any(|net| net.ip() == address))
    })
}

impl Trial<'_> {
    /// Who asks, and who is asked.
    pub(super) fn pair(&self) -> (&Endpoint, &Endpoint) {
        (&self.wanted.from, &self.wanted.to)
    }

    /// Asks all addresses at once; the first right answer ends it.
    pub(super) async fn probe(&mut self, bench: &Bench<'_>) {
        if self.impossible.is_some() {
            return;
        }
        let patience = match self.wanted.verdict {
            ExpectedVerdict::Reachable => Patience { whole: bench.options.patience, insist: true },
            ExpectedVerdict::Blocked => Patience { whole: bench.options.wait, insist: false },
        };
        let (from, service) = (&self.wanted.from, self.wanted.service);
        let line = !self.answerers.is_empty();
        let ask = |address: IpAddr| async move {
            let question = Question { address, service, line };
            (question, bench.ask(from, question, patience).await)
        };
        let mut running: FuturesUnordered<_> = self.addresses.iter().copied().map(ask).collect();
        let mut outcomes = Vec::new();
        while let Some((question, outcome)) = running.next().await {
            let done = self.right_answer(&outcome);
            outcomes.push((question, outcome));
            if done {
                break;
            }
        }
        drop(running);
        self.outcomes = outcomes;
    }

    /// Whether an outcome is an answer by who should give it.
    pub(super) fn right_answer(&self, outcome: &Outcome) -> bool {
        outcome.answered() && self.stranger(outcome).is_none()
    }

    /// The guest that answered although another one should have.
    pub(super) fn stranger<'o>(&self, outcome: &'o Outcome) -> Option<&'o str> {
        let Outcome::Answered { line: Some(line), .. } = outcome else { return None };
        let who = line.split(' ').next()?;
        (!self.answerers.is_empty() && !self.answerers.contains(who)).then_some(who)
    }
}

/// Drops the families that a source has no route for, where the same expectation was measured over another one.
pub(super) fn drop_families_without_route(trials: &mut Vec<Trial<'_>>) {
    let no_route = |trial: &Trial<'_>| {
        !trial.outcomes.is_empty()
            && trial.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Silent(Silence::NoRoute))
    };
    let routed: BTreeSet<usize> =
        trials.iter().filter(|trial| !no_route(trial)).map(|trial| trial.index).collect();
    trials
        .retain(|trial| trial.wanted.family.is_some() || !no_route(trial) || !routed.contains(&trial.index));
}
