//! Topologies written down in code, so that tests need no file.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use netloom::topology::*;

/// A guest with NICs; each is its interface's kernel name, the file's reference, and addresses (`dhcp` for a lease).
pub fn guest(name: &str, nics: &[(&str, &str, &str)]) -> Guest {
    let nic = |(index, (link, reference, addresses)): (usize, &(&str, &str, &str))| Nic {
        index,
        network: reference.split('.').next().unwrap().to_owned(),
        attach: Attach::Plain,
        mac: Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
        mtu: 1500,
        pvlan: Pvlan::Promiscuous,
        interfaces: vec![Interface {
            name: (*link).to_owned(),
            reference: (*reference).to_owned(),
            vid: None,
            addressing: match *addresses {
                "dhcp" => Addressing::Dynamic { v4: true, v6: false },
                "" => Addressing::None,
                list => Addressing::Static(list.split(' ').map(|a| a.parse().unwrap()).collect()),
            },
        }],
    };
    Guest {
        name: name.to_owned(),
        kind: GuestKind::Namespace,
        image: Image::BuiltIn,
        memory_mib: 128,
        cpus: 1,
        nics: nics.iter().enumerate().map(nic).collect(),
        routes: Vec::new(),
        firewall: None,
        serve: Vec::new(),
        router: false,
    }
}

pub fn topology(guests: Vec<Guest>) -> Topology {
    Topology {
        lab: "lab".into(),
        networks: BTreeMap::new(),
        links: Vec::new(),
        guests: guests.into_iter().map(|guest| (guest.name.clone(), guest)).collect(),
        expect: Vec::new(),
        outside: Vec::new(),
    }
}

/// `from`, `to` (blank-separated zones), services, action.
pub fn rule(from: &str, to: &str, services: &[Service], action: RuleAction) -> Rule {
    let zones = |text: &str| {
        let zone = |word: &str| match word {
            "self" => ZoneRef::Itself,
            "any" => ZoneRef::Any,
            name => ZoneRef::Zone(name.to_owned()),
        };
        text.split_whitespace().map(zone).collect()
    };
    Rule { from: zones(from), to: zones(to), services: services.to_vec(), action, forward: Vec::new() }
}

pub fn forward(from: &str, to: &str, service: Service, targets: &[(&str, u16)]) -> Rule {
    let target =
        |(address, port): &(&str, u16)| ForwardTarget { address: address.parse().unwrap(), port: *port };
    let forward = targets.iter().map(target).collect();
    Rule { forward, ..rule(from, to, &[service], RuleAction::Accept) }
}

pub fn expect(from: Endpoint, to: Endpoint, service: Service, verdict: ExpectedVerdict) -> Expectation {
    Expectation { from, to, service, via: None, family: None, verdict, line: 1 }
}

pub fn guest_end(name: &str) -> Endpoint {
    Endpoint::Guest(name.to_owned())
}
