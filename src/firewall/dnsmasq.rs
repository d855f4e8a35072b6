//! Configuration text of a firewall guest's own DHCP and DNS server.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::dhcp;
use crate::mode::Egress;
use crate::topology::{AddressRange, Addressing, Attach, Firewall, Guest, Interface, Topology};

/// The configuration for the zones that the firewall serves; `None` when it serves none. Paths of the lease and pid
/// files, and whether it stays in the foreground, are for the caller to say on the command line.
pub(super) fn config(topology: &Topology, guest: &Guest, firewall: &Firewall) -> Option<String> {
    let mut zones = String::new();
    for (zone, range) in &firewall.dhcp {
        let names = firewall.zones.get(zone).map(Vec::as_slice).unwrap_or_default();
        let served = guest
            .nics
            .iter()
            .flat_map(|nic| nic.interfaces.iter().map(|interface| (interface, nic.mtu)))
            .find_map(|(interface, mtu)| {
                let own = addresses(interface);
                let fits = |net: &&IpNetwork| net.contains(range.first);
                let on = names.contains(&interface.name).then(|| own.iter().find(fits).copied())??;
                Some((interface, mtu, own, on))
            });
        if let Some((interface, mtu, own, on)) = served {
            zones.push_str(&zone_config(zone, *range, interface, mtu, own, on));
        }
    }
    if zones.is_empty() {
        return None;
    }
    let mut out = format!(
        "# DHCP and DNS of firewall {} in lab {}, made by netloom.\n{}",
        guest.name,
        topology.lab,
        dhcp::COMMON
    );
    let _ = writeln!(out, "port=53");
    out.push_str(&dhcp::names(&topology.lab, &static_hosts(topology)));
    for server in upstream(topology, guest) {
        let _ = writeln!(out, "server={server}");
    }
    out.push_str(&zones);
    Some(out)
}

fn zone_config(
    zone: &str,
    range: AddressRange,
    interface: &Interface,
    mtu: u32,
    own: &[IpNetwork],
    on: IpNetwork,
) -> String {
    let (name, AddressRange { first, last }) = (&interface.name, range);
    let mut out = format!("# zone {zone}\ninterface={name}\n");
    let _ = writeln!(out, "dhcp-range={first},{last},{},{}", on.mask(), dhcp::LEASE);
    // dnsmasq tags a request with the interface it came by.
    let _ = writeln!(out, "dhcp-option=tag:{name},option:router,{}", on.ip());
    let _ = writeln!(out, "dhcp-option=tag:{name},option:dns-server,{}", on.ip());
    if mtu != dhcp::USUAL_MTU {
        let _ = writeln!(out, "dhcp-option=tag:{name},option:mtu,{mtu}");
    }
    out.push_str(&dhcp::advertisements(name, own, true, mtu));
    out
}

fn addresses(interface: &Interface) -> &[IpNetwork] {
    match &interface.addressing {
        Addressing::Static(list) => list,
        _ => &[],
    }
}

/// Static addresses of all guests, by guest.
fn static_hosts(topology: &Topology) -> Vec<(String, IpAddr)> {
    let of = |guest: &Guest| -> Vec<(String, IpAddr)> {
        let interfaces = guest.nics.iter().flat_map(|nic| &nic.interfaces);
        interfaces.flat_map(addresses).map(|net| (guest.name.clone(), net.ip())).collect()
    };
    topology.guests.values().flat_map(of).collect()
}

/// The resolvers of the networks that lead out and that the firewall plugs into untagged: the host's own address there.
fn upstream(topology: &Topology, guest: &Guest) -> BTreeSet<IpAddr> {
    guest
        .nics
        .iter()
        .filter(|nic| nic.attach == Attach::Plain)
        .filter_map(|nic| topology.networks.get(&nic.network))
        .filter(|network| network.wiring.dns && network.wiring.egress != Egress::None)
        .flat_map(|network| network.host.iter().map(IpNetwork::ip))
        .collect()
}
