//! What somebody may do to a running lab by hand.

use netloom::resource::names;

/// One way of doing harm.
pub(crate) struct Damage {
    /// In words.
    pub(crate) what: &'static str,
    /// What is run on the host.
    pub(crate) script: String,
    /// A change that the plan then has, and a reason of it.
    pub(crate) names: (String, String),
    /// Whether `status`, which compares with the lab's own copy of its file, can no longer do so.
    pub(crate) hides_the_file: bool,
}

fn link(kind: &str, name: &str) -> String {
    names::link("damaged", kind, name)
}

/// Words in capitals stand for kernel names; `in GUEST:` runs inside a guest.
fn script(text: &str) -> String {
    let mut text = text.to_owned();
    for network in ["LAN", "SIDE", "DESK"] {
        text = text.replace(network, &link("bridge", &network.to_lowercase()));
    }
    for port in ["A0", "B0", "B1", "C0", "D0"] {
        let lower = port.to_lowercase();
        let (guest, number) = lower.split_at(1);
        text = text.replace(port, &link("veth", &format!("{guest}/eth{number}")));
    }
    text.replace("TABLE", &names::table("damaged"))
        .replace("STATE", "$NETLOOM_STATE_DIR/labs/damaged")
        .replace("@", "ip netns exec netloom.damaged.")
}

/// Kills processes of a service: all that are marked as it, or only those whose command matches.
fn kill(service: &str, command: &str) -> String {
    format!(
        "for process in /proc/[0-9]*; do if tr '\\0' '\\n' <$process/environ 2>/dev/null | grep -q '^NETLOOM_MARK=netloom:damaged:service:{service} ' && \
            tr '\\0' ' ' <$process/cmdline | grep -q '{command}'; then kill -9 ${{process#/proc/}}; fi; done"
    )
}

/// All of them.
pub(crate) fn damages() -> Vec<Damage> {
    let plain = |(what, text, change, reason): &(&'static str, &str, &str, &str)| Damage {
        what,
        script: script(text),
        names: (script(change), (*reason).to_owned()),
        hides_the_file: false,
    };
    let mut all: Vec<Damage> = LIST.iter().map(plain).collect();
    let services = [
        ("supervisor and service killed", "lan+network/dnsmasq", ".", "does not exist"),
        ("supervisor killed", "a/serve", "__supervise", "is not supervised"),
        ("DHCP client killed", "c/dhcp-eth0", ".", "does not exist"),
    ];
    for (what, service, command, reason) in services {
        let names = (format!("service {service}"), reason.to_owned());
        all.push(Damage { what, script: kill(service, command), names, hides_the_file: false });
    }
    all.push(Damage {
        what: "the lab's directory deleted",
        script: script("rm -rf STATE; rm -rf STATE"),
        names: ("ruleset host".into(), "was changed by somebody else".into()),
        hides_the_file: true,
    });
    all
}

/// What, how, the change that the plan has then, and its reason.
const LIST: &[(&str, &str, &str, &str)] = &[
    ("a guest's link deleted", "ip link del D0", "create veth d/eth0", "does not exist"),
    ("a link deleted from inside", "@b ip link del eth1", "create veth b/eth1", "does not exist"),
    ("a bridge deleted", "ip link del DESK", "create bridge desk", "does not exist"),
    (
        "a bridge renamed",
        "ip link set SIDE down; ip link set SIDE name br-mine; ip link set br-mine up",
        "update bridge side",
        "name br-mine",
    ),
    (
        "a port renamed",
        "ip link set D0 down; ip link set D0 name mine7; ip link set mine7 up",
        "delete link mine7",
        "",
    ),
    (
        "a guest's interface renamed",
        "@d ip link set eth0 down; @d ip link set eth0 name lan7",
        "veth d/eth0",
        "elsewhere",
    ),
    ("a port unplugged", "ip link set B1 nomaster", "veth b/eth1", "bridge none"),
    ("a port plugged in elsewhere", "ip link set D0 master br-user", "veth d/eth0", "bridge `br-user`"),
    (
        "a guest's end moved to another namespace",
        "ip -n netloom.damaged.d link set eth0 netns isp name mine8",
        "create veth d/eth0",
        "does not exist",
    ),
    (
        "the host's address removed",
        "ip address del 10.74.2.1/24 dev DESK",
        "update bridge desk",
        "address 10.74.2.1/24 is missing",
    ),
    (
        "an address added on the host",
        "ip address add 10.99.99.1/24 dev SIDE",
        "update bridge side",
        "address 10.99.99.1/24 is extra",
    ),
    (
        "a guest's address removed",
        "@b ip address del 10.74.1.2/24 dev eth1",
        "update veth b/eth1",
        "address 10.74.1.2/24 is missing",
    ),
    (
        "an address added in a guest",
        "@a ip address add 10.74.0.99/24 dev eth0",
        "update veth a/eth0",
        "address 10.74.0.99/24 is extra",
    ),
    (
        "a guest's addresses flushed",
        "@a ip address flush dev eth0 scope global",
        "update veth a/eth0",
        "is missing",
    ),
    (
        "a guest's MAC changed",
        "@b ip link set eth1 address 02:00:00:00:00:99",
        "update veth b/eth1",
        "MAC 02:00:00:00:00:99",
    ),
    (
        "a bridge's MAC changed",
        "ip link set DESK address 02:00:00:00:00:98",
        "update bridge desk",
        "MAC 02:00:00:00:00:98",
    ),
    ("a port's MTU changed", "ip link set B1 mtu 1400", "update veth b/eth1", "MTU 1400"),
    ("a bridge's MTU changed", "ip link set SIDE mtu 1300", "update bridge side", "MTU 1300"),
    ("a bridge taken down", "ip link set LAN down", "update bridge lan", "is down"),
    ("a port taken down", "ip link set B1 down", "update veth b/eth1", "is down"),
    ("a guest's link taken down", "@d ip link set eth0 down", "update veth d/eth0", "is down"),
    ("STP switched on", "ip link set SIDE type bridge stp_state 1", "update bridge side", "STP on"),
    (
        "a bridge's ageing time changed",
        "ip link set SIDE type bridge ageing_time 0",
        "update bridge side",
        "ageing time",
    ),
    (
        "a bridge passes link-local groups",
        "ip link set SIDE type bridge group_fwd_mask 8",
        "update bridge side",
        "link-local groups",
    ),
    (
        "a port's isolation off",
        "bridge link set dev B0 isolated off",
        "update veth b/eth0",
        "port isolation off",
    ),
    (
        "a port's isolation on",
        "bridge link set dev B1 isolated on",
        "update veth b/eth1",
        "port isolation on",
    ),
    ("hairpin on", "bridge link set dev B1 hairpin on", "update veth b/eth1", "hairpin"),
    (
        "learning and flooding off",
        "bridge link set dev B1 learning off flood off",
        "update veth b/eth1",
        "learning",
    ),
    ("a port shut by its state", "bridge link set dev B1 state 0", "update veth b/eth1", "state of"),
    ("a mark changed", "ip link set DESK alias mine", "create bridge desk", "does not exist"),
    ("a mark removed", "ip link set D0 alias ''", "create veth d/eth0", "does not exist"),
    ("a group changed", "ip link set SIDE group 7", "update bridge side", "the group of"),
    ("a guest's group changed", "@a ip link set eth0 group 0", "update veth a/eth0", "the group of"),
    ("the host's leg cut off", "ip link set DESK addrgenmode none", "update bridge desk", "host leg off"),
    (
        "a bridge without a leg answers ARP",
        "sysctl -qw net.ipv4.conf.SIDE.arp_ignore=0",
        "update bridge side",
        "answers ARP",
    ),
    (
        "a bridge without a leg listens to routers",
        "sysctl -qw net.ipv6.conf.SIDE.accept_ra=2",
        "update bridge side",
        "listens to router",
    ),
    (
        "a guest without advertisements heeds them",
        "@a sysctl -qw net.ipv6.conf.eth0.accept_ra=2",
        "veth a/eth0",
        "router advertisements",
    ),
    (
        "IPv6 switched off on a bridge",
        "sysctl -qw net.ipv6.conf.LAN.disable_ipv6=1",
        "update bridge lan",
        "IPv6 is off",
    ),
    (
        "IPv6 switched off in a guest",
        "@a sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
        "update veth a/eth0",
        "IPv6 is off",
    ),
    ("all rulesets flushed", "nft delete table inet TABLE", "create ruleset host", "does not exist"),
    ("a table emptied", "nft flush table inet TABLE", "update ruleset host", "was changed"),
    (
        "a rule added",
        "nft add chain inet TABLE mine; nft add rule inet TABLE mine drop",
        "update ruleset host",
        "was changed",
    ),
    (
        "the bridge table deleted",
        "nft delete table bridge TABLE",
        "create ruleset host.bridge",
        "does not exist",
    ),
    ("a firewall's table deleted", "@fw nft flush ruleset", "create ruleset fw", "does not exist"),
    (
        "a firewall's rule added",
        "@fw nft insert rule inet netloom forward accept",
        "update ruleset fw",
        "was changed",
    ),
    ("a table in a guest without one", "@b nft add table inet netloom", "delete ruleset b", "is not wanted"),
    (
        "what was loaded is forgotten",
        "rm STATE/rulesets/host.TABLE.json",
        "update ruleset host",
        "was changed",
    ),
    ("the host's forwarding off", "sysctl -qw net.ipv4.ip_forward=0", "update sysctls host", "ip_forward 0"),
    ("a router's forwarding off", "@fw sysctl -qw net.ipv4.ip_forward=0", "update sysctls fw", "0 → 1"),
    ("a default route deleted", "@d ip route del default", "create routes d", "does not exist"),
    (
        "a default route changed",
        "@d ip route replace default via 10.74.2.9",
        "create routes d",
        "does not exist",
    ),
    (
        "a blackhole before the default route",
        "@d ip route add blackhole default metric 0 || @d ip route replace blackhole default",
        "routes d",
        "",
    ),
    ("a namespace deleted", "ip netns del netloom.damaged.c", "create namespace c", "does not exist"),
    (
        "a namespace's name left empty",
        "umount /run/netns/netloom.damaged.b",
        "replace namespace b",
        "cannot be entered",
    ),
    (
        "a namespace's name given to one of another kind",
        "umount /run/netns/netloom.damaged.b; mount --bind /proc/self/ns/uts /run/netns/netloom.damaged.b",
        "replace namespace b",
        "cannot be entered",
    ),
    (
        "a service's file deleted",
        "rm STATE/services/lan+network.dnsmasq/dnsmasq.conf",
        "replace service lan+network/dnsmasq",
        "is missing",
    ),
    (
        "a service's file changed",
        "echo port=0 >>STATE/services/fw.dnsmasq/dnsmasq.conf",
        "replace service fw/dnsmasq",
        "was changed",
    ),
    (
        "a service's directory deleted",
        "rm -r STATE/services/a.serve",
        "replace service a/serve",
        "files are missing",
    ),
];
