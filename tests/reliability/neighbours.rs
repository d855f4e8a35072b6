//! A host full of other people's things, many of them named and marked almost like ours: not one of them is touched,
//! whatever becomes of the labs beside them.

use netloom::resource::names;

use crate::host::PlayedHost;
use crate::rig::Ended;

/// Names and marks that miss ours by a little. `GROUP` is the lab's own group number, `LIKE` a name of the shape that
/// links of ours have, `SERVICE` what a process of the lab's is marked with.
const FOREIGN: &str = r#"
    link() { name=$1; shift; ip link add "$name" "$@"; ip link set "$name" up; }
    link nl-br0 type bridge
    link netloom0 type bridge
    link "$LIKE" type bridge
    link near type bridge
    link mine0 type bridge
    link tap9 type bridge
    ip address add 172.21.0.1/24 dev mine0
    # The lab's group number, and a text that is not our mark.
    ip link set mine0 group "$GROUP" alias "somebody's own"
    ip link set nl-br0 group "$GROUP"
    ip link set near alias "netloom:near"
    ip link set netloom0 alias "netloom:near:bridge"
    ip link set tap9 alias "netloom:near:Bridge:lan"
    ip tuntap add dev usertap0 mode tap
    ip link set usertap0 group "$GROUP" alias " netloom:near:tap:a/eth0" master mine0 up
    link twin0 type veth peer name twin1
    ip link set twin0 alias "netloom:near:bridge:" group "$GROUP"
    ip link set twin1 alias "netloom:--all:bridge:lan" group "$GROUP"
    link mv0 link up0 type macvlan mode bridge
    ip link set mv0 alias "netloomx:near:macvlan:a/eth0" group "$GROUP"
    ip link property add dev mine0 altname netloom.near
    ip link property add dev mine0 altname netloom.nearby.downlink.lan
    ip link property add dev mine0 altname netloomx.near.uplink.lan
    for name in netloomx.near.a netloom.near netloom.near. netloom..a netloom.near.a.b netloom.NEAR.a netloom.--all.a near.a; do
        ip netns add "$name"
        ip -n "$name" link set lo up
        ip -n "$name" link add nl0 type bridge
        ip netns exec "$name" nft 'add table inet netloom'
    done
    ip link add pair0 type veth peer name eth0 netns netloom.near.a.b
    ip link set pair0 group "$GROUP" alias "the other end is elsewhere" up
    nft -f - <<'RULES'
        table ip netloom_near { chain c { type filter hook forward priority 0; counter; }; }
        table ip6 netloom_near { chain c { counter; }; }
        table arp netloom_near { chain c { counter; }; }
        table inet netloom { chain c { counter; }; }
        table inet netloom_ { chain c { counter; }; }
        table inet netloomx_near { chain c { counter; }; }
        table inet netloom_Near { chain c { counter; }; }
        table inet netloom__near { chain c { counter; }; }
        table inet near { chain c { counter; }; }
        table bridge netloom_near_ { chain c { counter; }; }
RULES
    ip route add 198.18.0.0/24 via 192.0.2.1 proto 110
    ip route add 198.18.1.0/24 via 192.0.2.1 table 110
    ip rule add from 172.21.0.0/24 lookup 110
    ip neighbour add 172.21.0.9 lladdr 02:00:00:00:00:09 dev mine0 nud permanent
    bridge fdb add 02:00:00:00:00:0a dev usertap0 master static
    run() { setsid env "$@" >/dev/null 2>&1 </dev/null & }
    run NETLOOM_MARK=garbage sleep 90001
    run "NETLOOM_MARK=netloom:near:service abc" sleep 90002
    run "NETLOOM_MARK=netloom:near:bridge:lan abc" sleep 90003
    run "NETLOOM_MARK=$SERVICE" sleep 90004
    run "XNETLOOM_MARK=$SERVICE abc" sleep 90005
    run "NETLOOM_MARK=netloom:--all:service:a/serve abc" sleep 90006
    # The mark itself, but of a user who may not make labs here.
    run "NETLOOM_MARK=$SERVICE abc" setpriv --reuid=65517 --regid=65517 --clear-groups sleep 90007
    run bash -c 'exec -a "netloom __supervise" sleep 90008'
    mkdir -p /run/netloom/others/deep "$NETLOOM_STATE_DIR/labs/Not A Lab" "$NETLOOM_STATE_DIR/labs/--all"
    echo mine >/run/netloom/note
    echo mine >/run/netloom/others/deep/note
    echo mine >"$NETLOOM_STATE_DIR/labs/notes.txt"
    echo mine >"$NETLOOM_STATE_DIR/labs/--all/netloom.yaml"
    until [ -z "$(ip -6 address show tentative)" ]; do sleep 0.1; done
"#;

/// What [`PlayedHost::look`] does not show.
const MORE: &str = r#"
    for place in /run/netns/*; do
        echo "$place $(stat -Lc %i "$place")"
        nsenter --net="$place" sh -c 'ip -j link | jq -c "[.[] | [.ifindex, .ifname, .flags]]"; ip -j address | jq -c "[.[] | [.ifname, (.addr_info[] | .local)]]"; nft list ruleset'
    done
    ip neighbour show nud permanent
    bridge fdb show | grep static
    ip route show table 110
    for process in /proc/[0-9]*; do
        grep -qz '^9000[0-9]$' $process/cmdline 2>/dev/null && echo "$process $(tr '\0' ' ' <$process/cmdline)" || :
    done
    find "$NETLOOM_STATE_DIR/labs" -path '*/beside/*' -o -path '*/labs/near*' -o -printf '%p %T@ %s\n' | grep -v '/labs ' | sort
    cat /run/netloom/note /run/netloom/others/deep/note
"#;

const LAB: &str = "
lab: near
networks:
  lan: { mode: nat, subnet: 10.75.0.0/24, forward: [{ service: tcp/8075, to: 'a:80' }] }
  side: { mode: internal }
guests:
  a: { nics: [{ network: lan }, { network: side, address: 10.75.1.1/24 }], serve: [tcp/80] }
  b: { nics: [{ network: side, address: 10.75.1.2/24, gateway: 10.75.1.1 }] }
";

const BESIDE: &str = "
lab: beside
networks: { lan: { mode: nat, subnet: 10.76.0.0/24 } }
guests: { a: { nics: [{ network: lan, address: 10.76.0.10/24 }], serve: [tcp/80] } }
";

/// A host with all of that, and another lab on it.
struct Street {
    host: PlayedHost,
}

impl Street {
    fn new() -> Self {
        let host = PlayedHost::new();
        let variables = format!(
            "GROUP={}; LIKE={}; SERVICE=netloom:near:service:a/serve;",
            names::group("near"),
            names::link("elsewhere", "bridge", "lan")
        );
        host.shell(&format!("{variables}{FOREIGN}"));
        host.up(&host.file("beside.yaml", BESIDE)).said(0, &[]);
        host.settle();
        Self { host }
    }

    fn look(&self) -> String {
        self.host.look() + &self.host.shell(MORE)
    }

    #[track_caller]
    fn assert_same(&self, before: &str, when: &str) {
        let mut after = self.look();
        for _ in 0..10 {
            if after == before {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            after = self.look();
        }
        let only = |a: &str, b: &str, sign: &str| -> Vec<String> {
            a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(|l| format!("{sign} {l}")).collect()
        };
        let lines = [only(before, &after, "-"), only(&after, before, "+")].concat();
        panic!("{when}:\n{}", lines.join("\n"));
    }
}

#[test]
fn others_are_never_touched() {
    let street = Street::new();
    let host = &street.host;
    let before = street.look();
    let file = |text: &str| host.file("near.yaml", text);
    // Up, changed, and down.
    host.up(&file(LAB)).said(0, &[]);
    host.ok(&["plan", "--check", "near"]);
    let changed = LAB.replace(
        "side: { mode: internal }",
        "side: { mode: host-only, subnet: 10.75.1.0/24, host: 10.75.1.9 }",
    );
    let changed = changed.replace("  b: {", "  c: {");
    host.up(&file(&changed)).said(0, &[]);
    host.ok(&["plan", "--check", "near"]);
    host.ok(&["down", "near"]);
    street.assert_same(&before, "after up, a change and down");
    // A lab that is told by its marks alone.
    host.up(&file(LAB)).said(0, &[]);
    std::fs::remove_dir_all(host.state.join("labs/near")).unwrap();
    host.ok(&["down", "near"]);
    street.assert_same(&before, "after down by marks");
    host.run(&["down", "near"]).said(0, &["nothing to remove"]);
    street.assert_same(&before, "after down of what is not there");
    // All labs, and nothing but labs.
    let listed = host.json(&["list", "--json"]);
    let labs: Vec<&str> = listed.as_array().unwrap().iter().map(|lab| lab["lab"].as_str().unwrap()).collect();
    assert_eq!(labs, ["beside"]);
    host.ok(&["down", "beside"]);
    let alone = street.look();
    host.up(&host.file("beside.yaml", BESIDE)).said(0, &[]);
    host.up(&file(LAB)).said(0, &[]);
    host.ok(&["status", "--json"]);
    host.ok(&["down", "--all"]);
    street.assert_same(&alone, "after down --all");
    let note = host.state.join("labs/notes.txt");
    assert_eq!(std::fs::read_to_string(note).unwrap(), "mine\n");
}

/// What has a name that the lab needs is named, and stays; so does all the rest.
#[test]
fn a_taken_name_is_named() {
    let street = Street::new();
    let host = &street.host;
    let clean = street.look();
    let link = |kind: &str, name: &str| names::link("near", kind, name);
    let (lan, b) = (link("bridge", "lan"), link("veth", "b/eth0"));
    let takers: [(String, String, &str, String); 5] = [
        // A bridge of the very name; one with a text of its own; an alternative name; a port's name.
        (format!("ip link add {lan} type bridge"), format!("ip link del {lan}"), "bridge lan", lan.clone()),
        (
            format!("ip link add {lan} type bridge; ip link set {lan} alias mine up"),
            format!("ip link del {lan}"),
            "bridge lan",
            lan.clone(),
        ),
        (
            format!("ip link property add dev near altname {lan}"),
            format!("ip link property del dev near altname {lan}"),
            "bridge lan",
            lan.clone(),
        ),
        (
            format!("ip link add {b} type veth peer name other7"),
            format!("ip link del {b}"),
            "veth b/eth0",
            b.clone(),
        ),
        // Somebody's subnet.
        (
            "ip address add 10.75.0.77/24 dev near".to_owned(),
            "ip address del 10.75.0.77/24 dev near".to_owned(),
            "bridge lan",
            "near".to_owned(),
        ),
    ];
    let file = host.file("near.yaml", LAB);
    let refused = |ended: Ended, needs: &str, name: &str| {
        ended.said(3, &[needs, &format!("`{name}`"), "Hint:"]);
    };
    for (take, give, needs, name) in &takers {
        host.shell(take);
        host.settle();
        let before = street.look();
        refused(host.up(&file), needs, name);
        street.assert_same(&before, &format!("after `up` with {take}"));
        refused(host.run(&["plan", "--guests", "namespace", &file]), needs, name);
        host.run(&["down", "near"]).said(0, &["nothing to remove"]);
        street.assert_same(&before, &format!("after `down` with {take}"));
        host.shell(give);
    }
    street.assert_same(&clean, "all of it is gone");
    // In the middle of a lab's life: an incremental `up` that meets one leaves both as they were.
    host.up(&file).said(0, &[]);
    let extra = link("bridge", "extra");
    host.shell(&format!("ip link add {extra} type bridge"));
    host.settle();
    let before = street.look();
    let more = LAB.replace("  side: {", "  extra: { mode: internal }\n  side: {");
    refused(host.up(&host.file("more.yaml", &more)), "bridge extra", &extra);
    street.assert_same(&before, "after an `up` that met a taken name");
    host.ok(&["plan", "--check", "near"]);
    host.ok(&["down", "near"]);
    host.shell(&format!("ip link del {extra}"));
    street.assert_same(&clean, "after all of it");
}

/// A host that begins to forward forgets what routers advertised, unless it is told not to beforehand; the next
/// advertisement can be many minutes away.
#[test]
fn routes_that_routers_advertised_stay() {
    let host = PlayedHost::new();
    host.shell(
        "ip netns exec isp dnsmasq --conf-file=/dev/null --port=0 --keep-in-foreground --user=root --pid-file= \
             --leasefile-ro --interface=isp0 --enable-ra --dhcp-range=2001:db8:1::,ra-only,64 \
             --ra-param=isp0,600,1800 >/dev/null 2>&1 &
         heard() { ip -6 route show default proto ra | grep -q via; }
         for _ in $(seq 100); do if heard; then break; fi; sleep 0.1; done
         kill -9 $!
         heard",
    );
    host.settle();
    let before = host.look();
    let advertised = || host.shell("ip -6 route show proto ra | sed 's/expires [0-9]*sec//'");
    let routes = advertised();
    let file = host.file(
        "near.yaml",
        "lab: near\nnetworks: { lan: { mode: nat, subnet: [10.75.0.0/24, \"fd00:75::/64\"] } }\n\
         guests: { a: { nics: [{ network: lan }] } }\n",
    );
    host.up(&file).said(0, &[]);
    assert_eq!(host.shell("cat /proc/sys/net/ipv6/conf/all/forwarding").trim(), "1");
    assert_eq!(advertised(), routes);
    host.ok(&["down", "near"]);
    assert_eq!(advertised(), routes);
    host.assert_same(&before, "after `down`");
}

/// A namespace's name that has no namespace of the network behind it any more: `down` removes it like any other.
#[test]
fn a_name_that_is_bound_to_something_else_goes_with_the_lab() {
    let host = PlayedHost::new();
    host.shell("mkdir -p /run/mount"); // which umount(8) makes
    let before = host.look();
    let file = host.file(
        "near.yaml",
        "lab: near\nnetworks: { n: { mode: internal } }\nguests: { a: { nics: [{ network: n }] } }\n",
    );
    for other in ["", "mount --bind /proc/self/ns/uts /run/netns/netloom.near.a"] {
        host.up(&file).said(0, &[]);
        host.shell(&format!("umount /run/netns/netloom.near.a; {other}"));
        host.ok(&["down", "near"]);
        host.assert_same(&before, other);
    }
}
