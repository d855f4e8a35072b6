//! A running lab is damaged by hand in every way that somebody may think of: `status` and `plan` name it with its reason,
//! `up` mends it, and a connection through what is healthy goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::damages::{Damage, damages};
use crate::extent;
use crate::host::PlayedHost;
use crate::rig::{changes, eventually};

const LAB: &str = "
lab: damaged
networks:
  lan: { mode: nat, subnet: [10.74.0.0/24, 'fd00:74::/64'], forward: [{ service: tcp/8074, to: 'a:80' }] }
  side: { mode: internal }
  desk: { mode: host-only, subnet: 10.74.2.0/24 }
  steady: { mode: internal }
guests:
  a: { nics: [{ network: lan, address: [10.74.0.10/24, 'fd00:74::10/64'] }], serve: [tcp/80] }
  b: { nics: [{ network: lan, pvlan: isolated }, { network: side, address: 10.74.1.2/24 }] }
  fw:
    nics: [{ network: lan, address: 10.74.0.2/24 }, { network: side, address: 10.74.1.1/24 }]
    firewall:
      zones: { lan: lan, side: side }
      masquerade: [lan]
      dhcp: { side: 10.74.1.100-10.74.1.150 }
      rules: [{ from: side, to: lan }]
  c: { nics: [{ network: side }] }
  d: { nics: [{ network: desk, address: 10.74.2.10/24, gateway: 10.74.2.1 }], serve: [tcp/80] }
  k1: { nics: [{ network: steady, address: 10.74.3.1/24 }] }
  k2: { nics: [{ network: steady, address: 10.74.3.2/24 }] }
";

/// A connection between two guests, held open by sockets that were made inside of them.
struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    fn new(host: &PlayedHost) -> Self {
        let inside = |guest: &str| {
            let path = format!("/proc/{}/root/run/netns/netloom.damaged.{guest}", host.pid());
            fs::File::open(path).unwrap()
        };
        let (k1, k2) = (inside("k1"), inside("k2"));
        let (near, far) = std::thread::spawn(move || {
            setns(k2, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind("10.74.3.2:7000").unwrap();
            setns(k1, CloneFlags::CLONE_NEWNET).unwrap();
            let near = TcpStream::connect("10.74.3.2:7000").unwrap();
            (near, listener.accept().unwrap().0)
        })
        .join()
        .unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            end.set_nodelay(true).unwrap();
        }
        Self { near, far }
    }

    /// Something goes there and comes back.
    fn carries(&mut self, what: &str) {
        let mut heard = vec![0; what.len()];
        self.near.write_all(what.as_bytes()).unwrap();
        self.far
            .read_exact(&mut heard)
            .unwrap_or_else(|e| panic!("the connection is dead after {what}: {e}"));
        self.far.write_all(&heard).unwrap();
        self.near
            .read_exact(&mut heard)
            .unwrap_or_else(|e| panic!("the connection is dead after {what}: {e}"));
        assert_eq!(heard, what.as_bytes());
    }
}

struct Damaged {
    host: PlayedHost,
    file: String,
    before: String,
    connection: Connection,
}

impl Damaged {
    fn new() -> Self {
        let host = PlayedHost::new();
        host.shell("mkdir -p /run/mount"); // which umount(8) makes, with which some harm is done
        let before = host.look();
        let file = host.file("lab.yaml", LAB);
        host.up(&file).said(0, &[]);
        host.ok(&["plan", "--check", "damaged"]);
        let connection = Connection::new(&host);
        Self { host, file, before, connection }
    }

    fn plan(&self) -> BTreeMap<String, String> {
        let file = ["plan", "--json", "--guests", "namespace", &self.file];
        let document = self.host.json(&file);
        let list = document["changes"].as_array().unwrap();
        let name = |change: &serde_json::Value| changes(&serde_json::json!([change])).remove(0);
        let words = |change: &serde_json::Value| change["reasons"].to_string();
        list.iter().map(|change| (name(change), words(change))).collect()
    }

    /// Does it, and sees it named.
    fn damage(&mut self, damage: &Damage) {
        let what = damage.what;
        self.host.shell(&damage.script);
        let seen = || {
            let plan = self.plan();
            let named = plan.iter().any(|(change, reasons)| {
                change.contains(&damage.names.0) && reasons.contains(&damage.names.1)
            });
            named.then_some(plan)
        };
        let plan = eventually(&format!("{what} is seen as {:?}", damage.names), seen, || self.plan());
        self.connection.carries(what);
        if !damage.hides_the_file {
            let status = self.host.json(&["status", "--json", "damaged"]);
            let named: Vec<String> = plan.into_keys().collect();
            assert_eq!(changes(&status["drift"]), named, "`status` after {what}");
        }
    }

    /// Mends whatever is damaged.
    fn mend(&mut self, what: &str) {
        let ended = self.host.up(&self.file);
        assert_eq!(ended.code, 0, "`up` after {what}: {ended:?}");
        assert_ne!(ended.json()["changes"].as_array().unwrap().len(), 0, "{what}: {ended:?}");
        self.connection.carries(what);
        let plan = self.host.run(&["plan", "--check", "damaged"]);
        assert_eq!(plan.code, 0, "after {what} was mended: {plan:?}");
    }

    /// All of the lab does what it is for.
    fn works(&self, what: &str) {
        let script = "
            ip netns exec netloom.damaged.a ping -n -c 1 -w 5 10.74.0.1
            ip netns exec netloom.damaged.a ping -n -c 1 -w 5 fd00:74::1
            ip netns exec netloom.damaged.c ping -n -c 1 -w 5 10.74.0.10
            ip netns exec netloom.damaged.d ping -n -c 1 -w 5 10.74.2.1
            ip netns exec isp bash -c 'exec 3<>/dev/tcp/192.0.2.10/8074 && head -n1 <&3'
            ! ip netns exec isp ping -n -c 1 -W 1 10.74.2.10
        ";
        let ended = self.host.other(&["sh", "-exc", script]).output().unwrap();
        assert!(ended.status.success(), "after {what}: {ended:?}");
    }

    fn end(self) {
        self.host.ok(&["down", "damaged"]);
        drop(self.connection);
        self.host.assert_same(&self.before, "the host is as before");
        self.host.assert_gone();
    }
}

#[test]
#[ignore = "slow"]
fn each_is_named_and_mended() {
    let mut lab = Damaged::new();
    let all = damages();
    assert!(all.len() >= 25);
    lab.works("nothing");
    let seed = extent::seed();
    let mut dice = extent::dice(seed);
    // A third of them in the short form, another third each time.
    let chosen: Vec<&Damage> = all.iter().filter(|_| extent::full() || dice.u8(..3) == 0).collect();
    for damage in &chosen {
        lab.damage(damage);
        lab.mend(damage.what);
        if extent::full() {
            lab.works(damage.what);
        }
    }
    let names: Vec<&str> = chosen.iter().map(|damage| damage.what).collect();
    lab.works(&format!("all of seed {seed}: {}", names.join("; ")));
    eprintln!("damage: seed {seed}, {} of {} kinds, each named and mended", chosen.len(), all.len());
    lab.end();
}

/// Several at once, as chance has it; some make others impossible, so all that counts is that it is seen, and mended.
#[test]
#[ignore = "slow"]
fn several_at_once() {
    let seed = extent::seed();
    let mut dice = extent::dice(seed);
    let mut lab = Damaged::new();
    let all = damages();
    let rounds = extent::of(3, 60);
    let mut done = 0;
    for round in 0..rounds {
        let mut chosen: Vec<&Damage> = all.iter().collect();
        dice.shuffle(&mut chosen);
        chosen.truncate(dice.usize(2..=5));
        let names: Vec<&str> = chosen.iter().map(|damage| damage.what).collect();
        let what = format!("round {round} of seed {seed}: {}", names.join("; "));
        for damage in &chosen {
            let _ = lab.host.other(&["sh", "-ec", &damage.script]).output().unwrap();
            done += 1;
        }
        eventually(&format!("{what} is seen"), || (!lab.plan().is_empty()).then_some(()), || ());
        lab.mend(&what);
        lab.works(&what);
    }
    eprintln!("damage: seed {seed}, {rounds} rounds, {done} damages");
    lab.end();
}
