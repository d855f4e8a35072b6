//! One thing broken by hand in each of ten constructs: what is measured then must differ in exactly the cells that the
//! broken thing makes.

use netloom::compare::cases;
use netloom::resource::names;
use serde_json::Value;

use crate::rig::Rig;

/// A lab that shows a construct in its first state, up in a sandbox.
struct Shown {
    rig: Rig,
    lab: String,
}

impl Shown {
    #[track_caller]
    fn up(construct: &str) -> Self {
        let rig = Rig::new();
        let case = cases::find(construct, 0).unwrap();
        let file = rig.file("lab.yaml", &case.example());
        rig.up(&file);
        let shown = Self { rig, lab: case.lab() };
        // A busy machine's first look can be too early, as `compare` knows too.
        if !shown.odd().is_empty() {
            assert_eq!(shown.odd_at(&["again"]), Vec::<String>::new(), "before anything is broken");
        }
        shown
    }

    /// Cells that are not as promised: `g2l block`.
    #[track_caller]
    fn odd(&self) -> Vec<String> {
        self.odd_at(&[])
    }

    #[track_caller]
    fn odd_at(&self, more: &[&str]) -> Vec<String> {
        let row: Value = self.rig.json(&[&["__measure", &self.lab, "0"], more].concat());
        let cells = row["cells"].as_array().unwrap();
        assert!(cells.len() >= 7, "{row}");
        let word = |cell: &Value, key: &str| cell[key].as_str().unwrap().to_owned();
        cells
            .iter()
            .filter(|cell| cell["agreement"] != "equal")
            .map(|cell| format!("{} {}", word(cell, "property"), word(cell, "measured")))
            .collect()
    }

    /// Runs a script as root of the host. `$TABLE` is the lab's table, `$BRIDGE` the network's bridge, `$ROUTER` the
    /// namespace of its own router.
    #[track_caller]
    fn on_the_host(&self, script: &str) {
        let variables = format!(
            "TABLE={} BRIDGE={} ROUTER={}\n",
            names::table(&self.lab),
            names::link(&self.lab, "bridge", "net"),
            names::router_netns(&self.lab, "net")
        );
        self.rig.sh(&format!("{}/host", self.lab), &format!("{variables}{script}"));
    }

    /// Breaks it, and says what differs then.
    #[track_caller]
    fn broken_by(self, script: &str) -> Vec<String> {
        self.on_the_host(script);
        self.odd()
    }
}

#[test]
fn a_deleted_masquerade() {
    let odd = Shown::up("libvirt/nat").broken_by("nft flush chain inet $TABLE source_nat");
    assert_eq!(odd, ["g2l block"]);
}

#[test]
fn a_flushed_filter() {
    let odd = Shown::up("hyper-v/default-switch").broken_by("nft flush chain inet $TABLE forward");
    assert_eq!(odd, ["l2g pass"]);
}

#[test]
fn a_port_no_longer_isolated() {
    let script = "for port in $(ip -j link show master $BRIDGE | jq -r '.[].ifname'); do
            bridge link set dev $port isolated off
        done";
    let odd = Shown::up("libvirt/isolated-port").broken_by(script);
    assert_eq!(odd, ["g2g pass"]);
}

#[test]
fn an_address_of_the_host_where_it_has_no_leg() {
    let odd = Shown::up("virtualbox/internal").broken_by("ip address add 10.88.0.1/24 dev $BRIDGE");
    assert_eq!(odd, ["host_address yes"]);
}

#[test]
fn an_extra_way_out_of_an_isolated_network() {
    let script = "echo 1 >/proc/sys/net/ipv4/ip_forward
        nft insert rule inet $TABLE forward accept
        nft add table ip extra
        nft 'add chain ip extra out { type nat hook postrouting priority 90; }'
        nft add rule ip extra out oifname eth0 masquerade";
    // Only IPv4 gets out.
    let odd = Shown::up("libvirt/isolated").broken_by(script);
    assert_eq!(odd, ["g2l mixed", "l2g mixed"]);
}

#[test]
fn a_forward_that_leads_to_another_guest() {
    let shown = Shown::up("vmware/nat");
    let script = "
        chain=$(nft list table inet $TABLE | awk '/chain/ { chain = $2 } /dnat/ { print chain; exit }')
        b=$(ip netns exec $(ls /run/netns | grep '[.]b$') ip -4 -o address show eth0 | awk '{ print $4 }' | cut -d / -f 1)
        nft insert rule inet $TABLE $chain tcp dport 8080 dnat ip to $b:80";
    // The wrong one answers, which proves neither that it passes nor that it does not.
    assert_eq!(shown.broken_by(script), ["l2g unknown"]);
}

/// The forward of IPv6 leads to the address that the guest would have formed from its MAC address.
#[test]
fn a_guest_that_is_not_where_its_forward_leads() {
    let script = "a=$(ls /run/netns | grep '[.]a$')
        old=$(ip -n $a -6 -o address show dev eth0 scope global | awk '{ print $4 }')
        ip netns exec $a sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/autoconf'
        ip -n $a address del $old dev eth0
        ip -n $a address add fd00:88::77/64 dev eth0 nodad";
    assert_eq!(Shown::up("vmware/nat").broken_by(script), ["l2g unknown"]);
}

#[test]
fn a_dhcp_server_that_is_gone() {
    // The supervisor first, which would start it again. The LAN's own server has no such file.
    let script = "for process in /proc/[0-9]*; do
            [ \"$(cat $process/comm 2>/dev/null)\" = dnsmasq ] || continue
            tr '\\0' ' ' <$process/cmdline | grep -q /services/ || continue
            kill -9 $(sed -n 's/^PPid:\t//p' $process/status) ${process#/proc/}
        done";
    let odd = Shown::up("virtualbox/host-only").broken_by(script);
    assert_eq!(odd, ["dhcp none"]);
}

#[test]
fn a_host_that_is_let_onto_the_segment() {
    let odd = Shown::up("harvester/untagged").broken_by("nft delete table bridge $TABLE");
    assert_eq!(odd, ["g2h pass", "h2g pass", "host_address yes"]);
}

#[test]
fn an_engine_that_forwards_nothing() {
    let script = "ip netns exec $ROUTER nft flush chain inet netloom destination_nat";
    let odd = Shown::up("virtualbox/nat").broken_by(script);
    assert_eq!(odd, ["h2g block", "l2g block", "loopback no"]);
}

#[test]
fn a_router_that_lets_the_lan_in() {
    let odd =
        Shown::up("incus/ovn").broken_by("ip netns exec $ROUTER nft insert rule inet netloom forward accept");
    assert_eq!(odd, ["l2g pass"]);
}

/// First one guest's port, which then is in a VLAN by itself; then both, which meet there and nobody else.
#[test]
#[ignore = "full-kernel"]
fn a_wrong_pvid() {
    let shown = Shown::up("proxmox/vlan-aware");
    let wrong = |ports: &str| {
        shown.on_the_host(&format!(
            "for port in $(ip -j link show master $BRIDGE | jq -r '.[].ifname' | grep -vx eth0 | {ports}); do
                bridge vlan del vid 10 dev $port
                bridge vlan add vid 20 dev $port pvid untagged
            done"
        ));
        shown.odd()
    };
    // What the other guest reaches is half of these cells.
    assert_eq!(wrong("tail -n 1"), ["g2g block", "g2l mixed", "l2g mixed", "dhcp mixed"]);
    assert_eq!(wrong("head -n 1"), ["g2l block", "l2g block", "dhcp none"]);
}

/// The tag that the uplink's side of the network carries: the guests meet, and nobody of their VLAN.
#[test]
#[ignore = "full-kernel"]
fn a_trunk_that_lacks_the_vlan() {
    let odd = Shown::up("esxi/port-group-trunk").broken_by("bridge vlan del vid 10 dev eth0");
    assert_eq!(odd, ["g2l block", "l2g block", "dhcp none"]);
}

#[test]
fn a_macvlan_of_another_kind() {
    let script = "for name in $(ls /run/netns | grep '[.][ab]$'); do
            ip netns exec $name ip link set dev eth0 type macvlan mode bridge
        done";
    let odd = Shown::up("libvirt/macvtap-private").broken_by(script);
    assert_eq!(odd, ["g2g pass"]);
}

#[test]
fn a_route_that_is_missing() {
    let odd = Shown::up("libvirt/route").broken_by("echo 0 >/proc/sys/net/ipv4/ip_forward");
    assert_eq!(odd, ["g2l mixed", "l2g mixed"]);
}
