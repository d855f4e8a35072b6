//! A lab of resources written down in code, built on the bench by the real host adapter.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netloom::apply::Run;
use netloom::host::actuator::Actuator;
use netloom::host::lab::LabHost;
use netloom::host::links::Ahead;
use netloom::inventory::Inventory;
use netloom::plan::{self, Plan};
use netloom::resource::{Bridge, Id, Kind, Node, Place, Port, Resource, Sysctls, Veth, VethEnd, names};
use netloom::topology::{Attach, Mac};
use serde_json::Value;
use tokio::sync::watch;

use crate::bench::Bench;

pub(crate) const LAB: &str = "links";

/// Links with what does not change by itself, by place.
fn links(inventory: &Inventory) -> Vec<String> {
    let all =
        inventory.places.iter().flat_map(|(place, state)| state.links.values().map(move |l| (place, l)));
    all.map(|(place, l)| {
        format!("{place:?} {} {} {:?} {:?} {}", l.index, l.name, l.addresses, l.controller, l.mtu)
    })
    .collect()
}

/// A bench with a lab on it.
pub(crate) struct Rig {
    bench: Bench,
    runtime: tokio::runtime::Runtime,
    pub(crate) host: LabHost,
}

impl Deref for Rig {
    type Target = Bench;
    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let bench = Bench::new();
        // Only this thread is on the bench, so nothing may run on another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let host = Self::host();
        std::fs::create_dir_all(host.dir().path()).unwrap();
        Self { bench, runtime, host }
    }

    fn host() -> LabHost {
        LabHost::new(Path::new("/run/state"), LAB, Path::new("/run"), None, Arc::new(|_| {}))
    }

    /// From here on with a look that begins now, and is over before anything else is done.
    pub(crate) fn look_ahead(&mut self) {
        let begun = Ahead::begin();
        assert!(begun.is_some());
        self.host = Self::host().after(begun);
        std::thread::sleep(Duration::from_millis(50));
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Builds what is wanted and says what was done; fails unless a second look finds nothing more to do. That look goes only
    /// where something was changed: a look at all of it sees the same.
    #[track_caller]
    pub(crate) fn up(&self, wanted: &[Node]) -> Vec<String> {
        let (_stop, interrupt) = watch::channel(false);
        // Where all that a change can be seen in is known, it is seen at once.
        let known = wanted.iter().all(|node| node.resource.host_links().is_some());
        let once = |said: &str| assert!(!known || !said.starts_with("once more"), "{said}");
        let run = Run { actuator: &self.host, progress: &once, interrupt };
        let converged = self.run(run.converge(wanted)).unwrap_or_else(|e| panic!("{e}: {:?}", e.causes()));
        let all = self.inventory(wanted);
        assert_eq!(converged.inventory.found, all.found);
        assert_eq!((&converged.inventory.strays, &converged.inventory.taken), (&all.strays, &all.taken));
        assert_eq!(links(&converged.inventory), links(&all));
        lines(&converged.plan)
    }

    /// Fails to build; nothing of it may stay.
    #[track_caller]
    pub(crate) fn refuses(&self, wanted: &[Node]) -> netloom::Error {
        let (_stop, interrupt) = watch::channel(false);
        let run = Run { actuator: &self.host, progress: &|_| {}, interrupt };
        let error = self.run(run.converge(wanted)).map(drop).expect_err("it was built");
        let left = self.inventory(&[]);
        assert!(left.found.is_empty() && left.strays.is_empty(), "{left:?}");
        error
    }

    pub(crate) fn inventory(&self, wanted: &[Node]) -> Inventory {
        self.run(self.host.observe(wanted)).unwrap()
    }

    /// What would have to be done.
    #[track_caller]
    pub(crate) fn plan(&self, wanted: &[Node]) -> Vec<String> {
        lines(&plan::compare(wanted, &self.inventory(wanted)).unwrap())
    }

    /// Somebody else's change is seen, with this reason, and put right.
    #[track_caller]
    pub(crate) fn mends(&self, wanted: &[Node], change: &str, seen: &[&str]) {
        self.sh(change);
        assert_eq!(self.plan(wanted), seen, "after {change}");
        assert_eq!(self.up(wanted), seen);
    }

    /// Removes everything that is the lab's, without being told what that is; fails when a link of it stays.
    #[track_caller]
    pub(crate) fn down(&self) {
        let (_stop, interrupt) = watch::channel(false);
        let run = Run { actuator: &self.host, progress: &|_| {}, interrupt };
        self.run(run.tear_down(&plan::removal(&self.inventory(&[])))).unwrap();
        let left = self.inventory(&[]);
        assert!(left.found.is_empty() && left.strays.is_empty(), "{left:?}");
        let links = self.sh("ip -o link");
        assert!(!links.contains("nl") && !links.contains("netloom"), "{links}");
    }

    /// What `ip -d -j link show` says of one link.
    pub(crate) fn link(&self, name: &str) -> Value {
        Self::first(&self.sh(&format!("ip -d -j link show dev {name}")))
    }

    /// The same inside a guest.
    pub(crate) fn guest_link(&self, guest: &str, name: &str) -> Value {
        Self::first(&self.in_host(&netns(guest), &format!("ip -d -j link show dev {name}")))
    }

    fn first(text: &str) -> Value {
        let mut all: Value = serde_json::from_str(text).unwrap();
        all[0].take()
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    let line = |s: &plan::Summary| format!("{} {} {}: {}", s.verb, s.kind, s.name, s.reasons.join(", "));
    plan.summary().iter().map(line).collect()
}

pub(crate) fn node(kind: Kind, name: &str, resource: Resource, needs: &[Id]) -> Node {
    Node { id: Id::new(kind, name), resource, needs: needs.to_vec() }
}

pub(crate) fn bridge_link(name: &str) -> String {
    names::link(LAB, "bridge", name)
}

/// A plain bridge without the host.
pub(crate) fn bridge(name: &str) -> Node {
    let bridge = Bridge {
        link: bridge_link(name),
        mac: names::mac(LAB, "bridge", name),
        mtu: 1500,
        vlan_filtering: false,
        stp: false,
        addresses: Vec::new(),
        host_leg: false,
        uplinked: false,
        own_vids: Vec::new(),
        own_native: None,
    };
    node(Kind::Bridge, name, Resource::Bridge(bridge), &[])
}

pub(crate) fn port(bridge: &str) -> Port {
    Port { bridge: bridge_link(bridge), attach: Attach::Plain, isolated: false }
}

pub(crate) fn netns(guest: &str) -> String {
    names::netns(LAB, guest)
}

/// A guest without a NIC: its namespace and its settings.
pub(crate) fn guest(name: &str) -> [Node; 2] {
    let namespace = node(Kind::Namespace, name, Resource::Namespace(netns(name)), &[]);
    let setting = |path: &str| (path.to_owned(), "0".to_owned());
    let values = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(setting);
    let settings = Sysctls { place: Place::Netns(netns(name)), values: values.into() };
    let needs = [namespace.id.clone()];
    [namespace, node(Kind::Sysctls, name, Resource::Sysctls(settings), &needs)]
}

/// A guest's NIC `eth0`, plugged in at `port`.
pub(crate) fn veth(guest: &str, port: Port, address: &str) -> Node {
    let name = format!("{guest}/eth0");
    let near = VethEnd {
        place: Place::Host,
        link: names::link(LAB, "veth", &name),
        mac: names::mac(LAB, "veth", &name),
        mtu: 1500,
        port: Some(port),
        addresses: Vec::new(),
        advertised: None,
        route_localnet: false,
    };
    let far = VethEnd {
        place: Place::Netns(netns(guest)),
        link: "eth0".into(),
        mac: mac(guest),
        mtu: 1500,
        port: None,
        addresses: vec![address.parse().unwrap()],
        advertised: Some(false),
        route_localnet: false,
    };
    let veth = Veth { ends: [near, far] };
    node(Kind::Veth, &name, Resource::Veth(veth), &[Id::new(Kind::Sysctls, guest)])
}

pub(crate) fn mac(guest: &str) -> Mac {
    names::mac(LAB, "guest", guest)
}
