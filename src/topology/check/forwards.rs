//! Port forwards into networks: who they lead to, and which address that guest has.
//!
//! A target need not have a static address: where the network itself hands out addresses the guest is promised one
//! lease, and its IPv6 address follows from its MAC address.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::address::{address, family, number, reserved, special};
use super::networks::Nets;
use crate::diagnostic::{Sink, Span};
use crate::spec::decode::At;
use crate::spec::file;
use crate::spec::suggest::{listing, unknown};
use crate::spec::tree::shortened;
use crate::spec::values::Ports;
use crate::topology::{Addressing, Forward, Guest, Mac, Network, Nic, Protocol};

/// What a forward listens on already.
struct Claim {
    protocol: Protocol,
    family: u8,
    address: Option<IpAddr>,
    ports: (u16, u16),
    line: u32,
}

/// Claims by listener: the host (an empty name), or a network with a router of its own on an uplink.
type Claims = HashMap<String, Vec<Claim>>;

/// Where a network's own DNS (port 53) and DHCP server (port 67) listens: protocol-blind, for DNS takes both.
struct Server {
    network: String,
    address: IpAddr,
    port: u16,
}

fn servers(nets: &Nets) -> Vec<Server> {
    let mut out = Vec::new();
    for (name, net) in &nets.by_name {
        let wiring = net.network.wiring;
        let ports = [(wiring.dns, 53), (wiring.dhcp, 67)].into_iter().filter(|(is, _)| *is);
        for port in ports.map(|(_, port)| port) {
            let address = |net: &IpNetwork| Server { network: name.clone(), address: net.ip(), port };
            out.extend(net.network.host.iter().map(address));
        }
    }
    out
}

/// Reads the forwards of every network and guest.
pub(super) fn check(file: &file::File, nets: &mut Nets, guests: &BTreeMap<String, Guest>, sink: &mut Sink) {
    let mut claims = Claims::new();
    let servers = servers(nets);
    for (name, decl) in file.networks.get().map_or(&[][..], |table| &table.entries) {
        let list = decl.as_ref().and_then(|decl| decl.forward.get());
        let (Some(list), Some(net)) = (list, nets.by_name.get_mut(&name.value)) else { continue };
        if net.loose {
            continue;
        }
        if !net.network.wiring.forwards {
            if !net.network.vlans.is_empty() {
                let hint = "remove `forward`: it is for networks without VLANs; a firewall guest can forward into a VLAN";
                sink.hinted(list.span, format!("network `{}` has VLANs", name.value), hint);
            }
            continue;
        }
        for forward in &list.items {
            let (Some(service), Some(to)) = (forward.service.get(), forward.to.get()) else { continue };
            let Some((host, port)) = super::endpoint::split(to, sink) else { continue };
            let wish = Wish { service, to: to.span, host, port, address: forward.address.get().copied() };
            one(&wish, &servers, &mut net.network, guests, &mut claims, sink);
        }
    }
    of_guests(file, nets, guests, &servers, &mut claims, sink);
}

/// Networks that have forwards in the file, as far as can be said before guests are read: if a guest's forward names no
/// network, all of the guest's.
pub(super) fn through(file: &file::File) -> impl Iterator<Item = &str> {
    let networks = file.networks.get().map_or(&[][..], |table| &table.entries).iter();
    let own = networks.filter(|(_, decl)| {
        let list = decl.as_ref().and_then(|decl| decl.forward.get());
        list.is_some_and(|list| !list.items.is_empty())
    });
    let guests = file.guests.get().map_or(&[][..], |table| &table.entries).iter();
    let of_guests = guests.filter_map(|(_, decl)| decl.as_ref()).flat_map(|decl| {
        let forwards = decl.forward.get().map_or(&[][..], |list| &list.items).iter();
        let nics = decl.nics.get().map_or(&[][..], |list| &list.items);
        forwards.flat_map(move |forward| {
            let all = nics.iter().filter(|_| forward.network.is_absent()).filter_map(|nic| nic.network.get());
            forward.network.get().into_iter().chain(all)
        })
    });
    own.map(|(name, _)| name.value.as_str()).chain(of_guests.map(|name| name.value.as_str()))
}

/// A forward as the file has it, at its network or at its guest.
struct Wish<'a> {
    service: &'a At<Ports>,
    /// Where the file says who it leads to.
    to: Span,
    /// A guest, or an address.
    host: &'a str,
    port: Option<u16>,
    address: Option<At<IpAddr>>,
}

/// Reads the forwards that guests have.
fn of_guests(
    file: &file::File,
    nets: &mut Nets,
    guests: &BTreeMap<String, Guest>,
    servers: &[Server],
    claims: &mut Claims,
    sink: &mut Sink,
) {
    for (name, decl) in file.guests.get().map_or(&[][..], |table| &table.entries) {
        let list = decl.as_ref().and_then(|decl| decl.forward.get());
        let (Some(list), Some(guest)) = (list, guests.get(&name.value)) else { continue };
        for forward in &list.items {
            let Some(service) = forward.service.get() else { continue };
            let Some(network) = network_of(forward, guest, nets, sink) else { continue };
            let Some(net) = nets.by_name.get_mut(&network).filter(|net| !net.loose) else { continue };
            let port = forward.port.get().and_then(|port| u16::try_from(port.value.0).ok());
            let to = forward.port.get().map_or(service.span, |port| port.span);
            let address = forward.address.get().copied();
            let wish = Wish { service, to, host: &name.value, port, address };
            one(&wish, servers, &mut net.network, guests, claims, sink);
        }
    }
}

/// The network through which a guest's forward comes.
fn network_of(forward: &file::GuestForward, guest: &Guest, nets: &Nets, sink: &mut Sink) -> Option<String> {
    let has = |name: &str| nets.by_name.get(name).is_none_or(|net| net.network.wiring.forwards || net.loose);
    let mut able: Vec<&str> = guest.nics.iter().map(|nic| nic.network.as_str()).filter(|n| has(n)).collect();
    able.dedup();
    if let Some(network) = forward.network.get() {
        nets.find(network, sink)?;
        if able.contains(&network.value.as_str()) {
            return Some(network.value.clone());
        }
        let message = match guest.nics.iter().any(|nic| nic.network == network.value) {
            true => format!("network `{}` has no port forwards", network.value),
            false => format!("guest `{}` has no NIC on network `{}`", guest.name, network.value),
        };
        let hint = match able.as_slice() {
            [] => "a mode that has them is `nat`".to_owned(),
            some => format!("those that have them: {}", listing(some.iter().copied())),
        };
        sink.hinted(network.span, message, hint);
        return None;
    }
    match able.as_slice() {
        [one] => Some((*one).to_owned()),
        [] => {
            let message = format!("no network of guest `{}` has port forwards", guest.name);
            sink.hinted(
                forward.at,
                message,
                "remove it, or give the guest a NIC on a network that has them, such as one of mode `nat`",
            );
            None
        }
        several => {
            let message = format!("guest `{}` has several networks with port forwards", guest.name);
            let hint = format!(
                "say which: `network: {}`; there are: {}",
                several[0],
                listing(several.iter().copied())
            );
            sink.hinted(forward.at, message, hint);
            None
        }
    }
}

fn one(
    wish: &Wish<'_>,
    servers: &[Server],
    network: &mut Network,
    guests: &BTreeMap<String, Guest>,
    claims: &mut Claims,
    sink: &mut Sink,
) {
    let Wish { service, to, host, port, address: from } = *wish;
    // Networks without a router on an uplink share the host's ports.
    let listener = if network.external.is_some() { network.name.clone() } else { String::new() };
    let Some(targets) = targets(host, to, network, guests, sink) else { return };
    let ports = (service.value.first, service.value.last);
    if port.is_some() && ports.0 != ports.1 {
        let hint = "leave the target's port out: each port of the range keeps its number";
        sink.hinted(to, "a range of ports cannot be forwarded to one port", hint);
        return;
    }
    if let Some((from, what)) = from.and_then(|from| Some((from, special(from.value)?))) {
        let message = format!("`{}` cannot be forwarded from: it is {what}", from.value);
        sink.hinted(from.span, message, "leave `address` out to mean every address but the loopback");
        return;
    }
    if let Some(from) = from
        && let Some((message, hint)) = wrong_listener(from.value, ports, network, servers)
    {
        sink.hinted(from.span, message, hint);
        return;
    }
    let fits = |target: &IpAddr| from.is_none_or(|from| family(from.value) == family(*target));
    if let (Some(from), false) = (from, targets.iter().any(fits)) {
        let message = format!("`{}` is of another family than the target", from.value);
        sink.hinted(from.span, message, "IPv4 is forwarded to IPv4, IPv6 to IPv6");
        return;
    }
    for target in targets.into_iter().filter(fits) {
        let claim = Claim {
            protocol: service.value.protocol,
            family: family(target),
            address: from.map(|from| from.value),
            ports,
            line: service.span.line,
        };
        let taken = claims.entry(listener.clone()).or_default();
        if let Some(first) = taken.iter().find(|other| clash(other, &claim)) {
            let message = format!("this port is already forwarded (line {})", first.line);
            sink.hinted(service.span, message, "choose another port, or another `address`");
            return;
        }
        let address = claim.address;
        taken.push(claim);
        let port = port.unwrap_or(ports.0);
        let guest = guests.contains_key(host).then(|| host.to_owned());
        let protocol = service.value.protocol;
        network.forwards.push(Forward { protocol, ports, address, guest, target, port });
    }
}

/// Why a forward cannot listen on this address.
fn wrong_listener(
    from: IpAddr,
    (first, last): (u16, u16),
    network: &Network,
    servers: &[Server],
) -> Option<(String, String)> {
    if let Some(external) = &network.external {
        let near = external.addresses.iter().find(|net| net.is_ipv4() == from.is_ipv4());
        if !near.is_some_and(|net| net.contains(from)) || external.gateways.contains(&from) {
            let message =
                format!("the router of network `{}` cannot have the address `{from}`", network.name);
            let hint = match near {
                Some(net) => format!(
                    "name a free address of `{}/{}`, or leave `address` out",
                    net.network(),
                    net.prefix()
                ),
                None => {
                    "leave `address` out, or give the router an `external` address of this family".to_owned()
                }
            };
            return Some((message, hint));
        }
        return None;
    }
    let server = servers.iter().find(|s| s.address == from && (first..=last).contains(&s.port))?;
    let what = if server.port == 53 { "DNS" } else { "DHCP" };
    let message = format!("network `{}` has its {what} server at `{from}`", server.network);
    Some((
        message,
        "choose another port, or another `address`; without one this server stays as it is".to_owned(),
    ))
}

fn clash(a: &Claim, b: &Claim) -> bool {
    (a.protocol, a.family) == (b.protocol, b.family)
        && (a.address.is_none() || b.address.is_none() || a.address == b.address)
        && a.ports.0 <= b.ports.1
        && b.ports.0 <= a.ports.1
}

/// Addresses a forward leads to, one of each family.
fn targets(
    host: &str,
    to: Span,
    network: &mut Network,
    guests: &BTreeMap<String, Guest>,
    sink: &mut Sink,
) -> Option<Vec<IpAddr>> {
    let name = network.name.clone();
    if let Ok(ip) = host.parse::<IpAddr>() {
        if let Some(subnet) = network.subnets.iter().find(|subnet| subnet.contains(ip)) {
            let own = network.gateway.iter().chain(&network.resolver).any(|own| own.ip() == ip);
            let wrong = reserved(subnet, ip).or(own.then_some("address of the gateway"));
            if let Some(what) = wrong {
                let message = format!("`{ip}` is the {what} of network `{name}`, not a guest's");
                sink.hinted(to, message, "name a guest of the network, or its address");
                return None;
            }
            return Some(vec![ip]);
        }
        let message = format!("the address `{ip}` is not in a subnet of network `{name}`");
        sink.hinted(to, message, "name a guest of the network, or its address");
        return None;
    }
    let Some(guest) = guests.get(host) else {
        let message = format!("there is no guest `{}` to forward to", shortened(host));
        sink.hinted(to, message, unknown(host, "guests", guests.keys().map(String::as_str)));
        return None;
    };
    let Some(nic) = guest.nics.iter().find(|nic| nic.network == name) else {
        let message = format!("guest `{host}` has no NIC on network `{name}`");
        sink.hinted(to, message, "a forward leads to a guest of its own network");
        return None;
    };
    let found = addresses(nic, network);
    if found.is_empty() {
        let message = format!("guest `{host}` has no address on network `{name}` that is known beforehand");
        sink.hinted(to, message, "give its NIC there an `address`");
        return None;
    }
    Some(found)
}

fn addresses(nic: &Nic, network: &mut Network) -> Vec<IpAddr> {
    let Some(interface) = nic.interfaces.first() else { return Vec::new() };
    match &interface.addressing {
        Addressing::Static(list) => {
            let mut out: Vec<IpAddr> = Vec::new();
            for ip in list.iter().map(IpNetwork::ip) {
                if !out.iter().any(|other| family(*other) == family(ip)) {
                    out.push(ip);
                }
            }
            out
        }
        Addressing::Dynamic { v4, v6 } => {
            let lease = if *v4 { reserve(nic.mac, network) } else { None };
            let advertised = network.subnets.iter().find(|subnet| *v6 && subnet.is_ipv6());
            let own = advertised.and_then(|subnet| eui64(subnet, nic.mac));
            lease.into_iter().chain(own).collect()
        }
        Addressing::None => Vec::new(),
    }
}

/// A lease from the network's own range, the same for every forward to one NIC. It is the one that the NIC would get
/// anyway, or has already in a lab that is up, unless another NIC was faster.
fn reserve(mac: Mac, network: &mut Network) -> Option<IpAddr> {
    if let Some((_, ip)) = network.reserved.iter().find(|(owner, _)| *owner == mac) {
        return Some(*ip);
    }
    let range = network.dhcp?;
    let taken = |ip: &IpAddr| network.reserved.iter().any(|(_, other)| other == ip);
    let (first, last) = (number(range.first), number(range.last));
    let usual = first + u128::from(preference(mac)) % (last - first + 1);
    let mut all = (usual..=last).chain(first..usual).map(|value| address(value, range.first));
    let free = all.find(|ip| !taken(ip))?;
    network.reserved.push((mac, free));
    Some(free)
}

/// What dnsmasq places a new client in its range by: the SDBM hash of the MAC address (`address_allocate` in its
/// dhcp.c), never 0.
fn preference(mac: Mac) -> u32 {
    let mix = |hash: u32, byte: &u8| {
        u32::from(*byte).wrapping_add(hash << 6).wrapping_add(hash << 16).wrapping_sub(hash)
    };
    mac.0.iter().fold(0, mix).max(1)
}

/// The address a guest forms from an advertised prefix and its MAC address (RFC 4291, appendix A).
fn eui64(subnet: &IpNetwork, mac: Mac) -> Option<IpAddr> {
    let IpNetwork::V6(subnet) = subnet else { return None };
    let [a, b, c, d, e, f] = mac.0;
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    (subnet.prefix() == 64).then(|| {
        let prefix = u128::from(subnet.network()) & !u128::from(u64::MAX);
        IpAddr::V6(Ipv6Addr::from(prefix | u128::from(id)))
    })
}
