//! A complete file for each mode: two guests on one network of it, with all that the mode needs named.

use std::fmt::Write as _;

use super::{Gateway, Mode, State, Uplink};

/// Name of the network in an [`example`].
pub const NETWORK: &str = "net";
/// Name of the second node's part, where the mode spans nodes: the second guest is there.
const FAR: &str = "far";
/// Names of the two guests.
pub const GUESTS: [&str; 2] = ["a", "b"];
/// What both serve, as a file has it.
const SERVE: &str = "[tcp/80, udp/53]";
/// Subnet where the mode has no default of its own: one of each family.
const SUBNETS: [&str; 2] = ["10.88.0.0/24", "fd00:88::/64"];
/// The uplink: a link that every sandbox has.
const UPLINK: &str = "eth0";
/// The leg of a network's own router on the uplink's network: free addresses of a sandbox's LAN.
const EXTERNAL: &str =
    "{ address: [192.0.2.50/24, \"2001:db8:1::50/64\"], gateway: [192.0.2.1, \"2001:db8:1::1\"] }";
/// Port forwards to the first guest.
const FORWARDS: [&str; 2] = ["{ service: tcp/8080, to: \"a:80\" }", "{ service: udp/5353, to: \"a:53\" }"];
/// VLAN 10 of the uplink with a leg of the host: a free address of a sandbox's VLAN 10.
pub(super) const HOST_IN_VLAN: &str = "vlans: { lan: { id: 10, subnet: [203.0.113.0/25, \"2001:db8:3::/64\"], host: [203.0.113.10, \"2001:db8:3::10\"] } }";
/// Positions of the two guests' static addresses in their subnets.
const POSITIONS: [u32; 2] = [10, 11];

/// A file in which two guests are on one network of this mode, in this state where the mode's contract
/// has states (the first one, if none is named). It can be built as it is in a sandbox; on a real host the uplink and the addresses on it are other ones.
#[must_use]
pub fn example(mode: &Mode, state: Option<&State>) -> String {
    example_with(mode, state, &[])
}

/// As [`example`], with these port forwards besides where the mode has any.
#[must_use]
pub fn example_with(mode: &Mode, state: Option<&State>, forwards: &[&str]) -> String {
    let wiring = mode.wiring;
    let state = state.or_else(|| mode.contract.and_then(|contract| contract.states.first()));
    let subnets = [mode.defaults.subnet.unwrap_or(SUBNETS[0]), SUBNETS[1]];
    let lab = mode.id.replace('/', "-");
    let mut out = format!("lab: {lab}\n\nnetworks:\n  {NETWORK}:\n    mode: {}\n", mode.id);
    let mut key = |text: &str| {
        let _ = writeln!(out, "    {text}");
    };
    if wiring.has_gateway() {
        key(&format!("subnet: [{}, \"{}\"]", subnets[0], subnets[1]));
    }
    if wiring.uplink != Uplink::None || wiring.gateway == Gateway::Router {
        key(&format!("uplink: {UPLINK}"));
    }
    if wiring.gateway == Gateway::Router {
        key(&format!("external: {EXTERNAL}"));
    }
    for line in mode.shown.keys.lines().chain(state.map_or("", |state| state.keys).lines()) {
        key(line);
    }
    if wiring.forwards {
        key("forward:");
        for forward in FORWARDS.iter().chain(forwards) {
            key(&format!("  - {forward}"));
        }
    }
    if wiring.overlay {
        let _ = write!(
            out,
            "  {FAR}:\n    mode: {}\n\nlinks:\n  - {{ between: [{NETWORK}, {FAR}], vxlan: 100 }}\n",
            mode.id
        );
    }
    out.push_str("\nguests:\n");
    let networks = [NETWORK, if wiring.overlay { FAR } else { NETWORK }];
    for ((guest, position), network) in GUESTS.into_iter().zip(POSITIONS).zip(networks) {
        let mut keys = vec![format!("network: {network}")];
        keys.extend([mode.shown.nic, state.map_or("", |state| state.nic)].map(str::to_owned));
        if !addresses_come_from_outside(mode) {
            let [v4, v6] = subnets.map(|subnet| address(subnet, position));
            keys.push(format!("address: [{v4}, \"{v6}\"]"));
        }
        keys.retain(|key| !key.is_empty());
        let nic = format!("{{ {} }}", keys.join(", "));
        let _ = write!(out, "  {guest}:\n    nics: [{nic}]\n    serve: {SERVE}\n");
    }
    out
}

/// Whether the network itself, or the uplink's, hands out addresses.
fn addresses_come_from_outside(mode: &Mode) -> bool {
    mode.wiring.dhcp || mode.wiring.uplink != Uplink::None
}

/// The address at a position of a subnet, with the prefix length, as a file has it.
fn address(subnet: &str, position: u32) -> String {
    let Some((network, length)) = subnet.split_once('/') else { return subnet.to_owned() };
    match network.strip_suffix(".0") {
        Some(start) => format!("{start}.{position}/{length}"),
        None => format!("{network}{position:x}/{length}"),
    }
}
