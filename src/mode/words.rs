//! A wiring in words, and what follows from it for the five directions.

use super::{
    Contract, Defaults, Dhcp, Direction, Egress, Gateway, MacvlanMode, Mode, Promise, State, Uplink, Wiring,
};

impl Wiring {
    /// What must come out in the five directions, in the order of [`Direction::ALL`]: what generic modes promise, and a
    /// proof by a second way of what the entries of constructs say.
    #[must_use]
    pub fn cells(&self) -> [Promise; 5] {
        let pass = |passes: bool| if passes { Promise::Pass } else { Promise::Block };
        let led_in = if self.forwards { Promise::Forward } else { Promise::Block };
        let between = pass(!self.isolated);
        match (self.uplink, self.gateway) {
            (Uplink::Port, _) => {
                let host = pass(!self.barred);
                [host, host, between, Promise::Pass, pass(!self.guarded)]
            }
            (Uplink::Macvlan(mode), _) => {
                let between = match mode {
                    MacvlanMode::Bridge => between,
                    MacvlanMode::Vepa => Promise::Depends,
                    MacvlanMode::Private => Promise::Block,
                };
                [Promise::Block, Promise::Block, between, Promise::Pass, Promise::Pass]
            }
            (Uplink::None, gateway) => {
                let out = pass(self.egress != Egress::None);
                let back = if self.ingress { Promise::Pass } else { led_in };
                let (to_host, from_host) = match gateway {
                    Gateway::Host => (pass(self.host_leg), pass(self.host_leg)),
                    Gateway::Engine => (out, back),
                    Gateway::Router => (Promise::Block, Promise::Block),
                };
                [to_host, from_host, between, out, back]
            }
        }
    }

    /// The primitives, one sentence each.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        let mut out = vec![match self.uplink {
            Uplink::None => "A bridge with a port for each guest.",
            Uplink::Port => {
                "A bridge with a port for each guest and one for the uplink, whose addresses and routes go to the bridge."
            }
            Uplink::Macvlan(MacvlanMode::Bridge) => {
                "No bridge: each guest has a macvlan on the uplink, of the mode `bridge`."
            }
            Uplink::Macvlan(MacvlanMode::Vepa) => {
                "No bridge: each guest has a macvlan on the uplink, of the mode `vepa`."
            }
            Uplink::Macvlan(MacvlanMode::Private) => {
                "No bridge: each guest has a macvlan on the uplink, of the mode `private`."
            }
        }];
        if self.overlay {
            out.push(
                "It is the part of one node; a VXLAN (RFC 7348, UDP 4789) between network namespaces joins the parts of two.",
            );
        }
        if self.isolated {
            out.push(
                "The guests' ports are isolated from each other, and nothing is routed from one guest to another.",
            );
        }
        if self.barred {
            out.push("A filter on the bridge lets nothing pass between the host and the guests' ports.");
        }
        if self.guarded {
            out.push(
                "A filter on the bridge keeps new connections from the uplink away from the guests' ports.",
            );
        }
        self.gateway_words(&mut out);
        self.address_words(&mut out);
        out
    }

    fn gateway_words(&self, out: &mut Vec<&'static str>) {
        match self.gateway {
            Gateway::Host if self.host_leg => out.push("The host has an address on the bridge."),
            Gateway::Host if self.uplink == Uplink::None => {
                out.push("The host has no address on the bridge, and drops what guests send to it.");
            }
            Gateway::Host => {}
            Gateway::Engine => out.push(
                "A router in a network namespace of its own is the gateway; the host is beyond it, over a veth pair.",
            ),
            Gateway::Router => out.push(
                "A router in a network namespace of its own is the gateway, with a macvlan on the uplink and an address there.",
            ),
        }
        if !self.has_gateway() {
            return;
        }
        let host = self.gateway == Gateway::Host;
        out.push(match self.egress {
            Egress::None => "Nothing is routed out.",
            Egress::Routed => "What leaves is routed with the guests' own addresses.",
            Egress::Masquerade if host => "What leaves is masqueraded behind the host's address.",
            Egress::Masquerade => "What leaves is masqueraded behind the router's address.",
        });
        out.push(match (self.ingress, self.forwards) {
            (true, _) => "New connections from outside are routed in.",
            (false, true) if self.gateway == Gateway::Router => {
                "What comes in are answers, and the router's ports that `forward` names."
            }
            (false, true) => "What comes in are answers, and the host's ports that `forward` names.",
            (false, false) if self.egress == Egress::None => "Nothing is routed in.",
            (false, false) => "What comes in are answers alone.",
        });
        if self.loopback {
            out.push("TCP and UDP to the gateway's address reach what listens on the host's 127.0.0.1.");
        }
    }

    fn address_words(&self, out: &mut Vec<&'static str>) {
        out.push(match (self.dhcp, self.dns) {
            (true, true) => {
                "dnsmasq hands out addresses, by DHCP and by router advertisements, and answers DNS."
            }
            (true, false) => "dnsmasq hands out addresses, by DHCP and by router advertisements.",
            (false, _) if self.uplink != Uplink::None => "The uplink's network hands out addresses.",
            (false, _) => {
                "Nobody hands out addresses: guests have theirs from the file, or from a firewall guest."
            }
        });
    }
}

impl Mode {
    /// The five directions: of the contract, or what the wiring gives where there is none.
    #[must_use]
    pub fn cells(&self) -> [Promise; 5] {
        self.contract.map_or_else(|| self.wiring.cells(), |contract| contract.cells)
    }
}

impl Promise {
    /// What it means, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Promise::Pass => "passes",
            Promise::Block => "does not pass",
            Promise::Forward => "through a port forward only",
            Promise::Depends => "depends on a choice",
        }
    }

    /// In four letters at most, for tables.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Promise::Pass => "pass",
            Promise::Block => "-",
            Promise::Forward => "fwd",
            Promise::Depends => "dep",
        }
    }
}

impl Dhcp {
    /// What it means, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Dhcp::Server => "the network hands out addresses",
            Dhcp::Lan => "the LAN hands out addresses",
            Dhcp::None => "nobody hands out addresses",
            Dhcp::Optional => "there may be a server, as one likes",
        }
    }
}

impl Contract {
    /// Whether nobody documents this direction, so that it is netloom's reading.
    #[must_use]
    pub fn is_inferred(&self, direction: Direction) -> bool {
        self.inferred.contains(&direction)
    }

    /// A state with its keys and what it decides: `with SNAT: guest → LAN pass`.
    #[must_use]
    pub fn in_state(&self, state: &State) -> String {
        let decided: Vec<String> = Direction::ALL
            .into_iter()
            .zip(self.cells)
            .zip(state.cells)
            .filter(|((_, cell), promise)| *cell == Promise::Depends || cell != promise)
            .map(|((direction, _), promise)| format!("{} {promise}", direction.words()))
            .collect();
        // States may differ in their making alone.
        let decided = if decided.is_empty() { "the same".to_owned() } else { decided.join(", ") };
        let keys: Vec<String> = state.keys.lines().map(|key| format!("`{key}`")).collect();
        let keys = if keys.is_empty() { String::new() } else { format!(" ({})", keys.join(", ")) };
        format!("{}{keys}: {decided}", state.label)
    }
}

impl Defaults {
    /// What the file need not say, as (key, value); empty when there is nothing special.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let start = self.subnet.and_then(|subnet| subnet.strip_suffix(".0/24"));
        let place = |position: u32| format!("{}.{position}", start.unwrap_or_default());
        let of = if start.is_none() { " of a /24" } else { "" };
        let mut out = Vec::new();
        if let Some(subnet) = self.subnet {
            out.push(("subnet", subnet.to_owned()));
        }
        if self.subnet.is_some() || self.gateway != 1 {
            out.push(("gateway or host", place(self.gateway) + of));
        }
        if let Some(dns) = self.dns {
            out.push(("DNS", place(dns) + of));
        }
        if let Some((first, last)) = self.range {
            out.push(("DHCP range", format!("{} to {}{of}", place(first), place(last))));
        }
        if self.mtu != super::DEFAULTS.mtu {
            out.push(("MTU", self.mtu.to_string()));
        }
        out
    }
}
