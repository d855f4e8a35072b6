#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::host::actuator::Memory;
use crate::inventory::Found;
use crate::resource::{desired, names};
use crate::topology::{self, GuestKind, LoadOptions};

const LAB: &str = "
lab: applies
networks:
  wan: { mode: nat, subnet: 10.99.0.0/24 }
  core: { mode: internal, vlans: { lan: 10, dmz: 20 } }
guests:
  a: { nics: [{ network: wan, address: 10.99.0.10/24 }], serve: [tcp/80] }
  b: { nics: [{ network: core, vlan: dmz, address: 10.10.20.10/24 }] }
";

const FIREWALL: &str = "
lab: applies
networks:
  wan: { mode: nat, subnet: 10.99.0.0/24 }
  inner: { mode: internal }
guests:
  a:
    nics: [{ network: wan, address: 10.99.0.10/24 }, { network: inner, address: 10.98.0.1/24 }]
    firewall: { zones: { w: [wan], i: [inner] }, dhcp: { i: 10.98.0.100-10.98.0.120 } }
  b: { nics: [{ network: inner }] }
";

fn nodes(text: &str) -> Vec<Node> {
    nodes_with(text, LoadOptions { guests: Some(GuestKind::Namespace) })
}

fn nodes_with(text: &str, options: LoadOptions) -> Vec<Node> {
    let topology = topology::load("test", text, &options).map_err(|e| e.to_string()).unwrap();
    desired::nodes(&topology, Path::new("/usr/bin/netloom")).unwrap()
}

fn run(actuator: &Memory) -> (Run<'_>, watch::Sender<bool>) {
    let (sender, interrupt) = watch::channel(false);
    (Run { actuator, progress: &|_| {}, interrupt }, sender)
}

#[tokio::test]
async fn builds_once_and_then_changes_nothing() {
    let host = Memory::default();
    let (run, _sender) = run(&host);
    let wanted = nodes(LAB);
    run.converge(&wanted).await.unwrap();
    let before = host.actions();
    assert!(run.converge(&wanted).await.unwrap().plan.is_empty());
    assert_eq!(host.actions(), before);
}

/// Whichever action fails: afterwards the host is as it was before.
#[tokio::test]
async fn any_failure_is_rolled_back() {
    let changed = LAB.replace("vlan: dmz", "vlan: lan").replace("serve: [tcp/80]", "serve: [tcp/81]");
    // A bridge goes whose port stays, and a whole firewall guest: rulesets, settings and services in its namespace.
    let moved = LAB.replace("wan", "lan").replace("b: {", "b: { router: true,").replace("a: {", "c: {");
    let labs = [LAB, changed.as_str(), moved.as_str(), FIREWALL];
    let steps = labs.iter().flat_map(|from| labs.iter().map(move |to| (Some(*from), *to)));
    for (first, second) in
        steps.filter(|(from, to)| *from != Some(*to)).chain([(None, LAB), (None, FIREWALL)])
    {
        let mut failures = 0;
        for action in 0.. {
            let host = Memory::default();
            let (run, _sender) = run(&host);
            if let Some(first) = first {
                run.converge(&nodes(first)).await.unwrap();
            }
            let before = host.resources();
            host.fail_at(Some(action));
            match run.converge(&nodes(second)).await {
                Ok(_) => break,
                Err(e) => assert_eq!(e.kind.exit_code(), 4, "{e}"),
            }
            failures += 1;
            assert_eq!(host.resources(), before, "after a failure of action {action}");
        }
        assert!(failures > 1, "nothing was made to fail");
    }
}

/// After a guest is added the others are not visited again, nor are their links on the host; what is removed, or stands on
/// what was changed, is.
#[tokio::test]
async fn a_second_look_goes_where_something_was_changed() {
    let look = |from: &str, to: &str| {
        let (from, to) = (nodes(from), nodes(to));
        let found = from.into_iter().map(|node| {
            let digest = plan::digest(&node.resource);
            (node.id, Found { resource: node.resource, defects: Vec::new(), digest })
        });
        let seen = Inventory { found: found.collect(), ..Inventory::default() };
        touched(&plan::compare(&to, &seen).unwrap(), &to)
    };
    let link = |kind, name| names::link("applies", kind, name);
    let inside = |guests: &[&str], links: Option<&[String]>, tables| {
        let guests = guests.iter().map(|guest| Place::Netns(names::netns("applies", guest)));
        let places =
            guests.chain(links.is_none_or(|links| !links.is_empty()).then_some(Place::Host)).collect();
        Some(Touched { places, links: links.map(|links| links.iter().cloned().collect()), tables })
    };
    let more = format!("{LAB}  c: {{ nics: [{{ network: wan, address: 10.99.0.12/24 }}] }}\n");
    let of_c = [link("bridge", "wan"), link("veth", "c/eth0")];
    assert_eq!(look(LAB, &more), inside(&["c"], Some(&of_c), false));
    assert_eq!(look(&more, LAB), None);
    let served = LAB.replace("tcp/80", "tcp/81");
    assert_eq!(look(LAB, &served), inside(&["a"], Some(&[]), false));
    // A bridge of another MTU: whatever is on it.
    let wider = LAB.replace("mode: nat,", "mode: nat, mtu: 1600,");
    assert_eq!(
        look(LAB, &wider),
        inside(&["a"], Some(&[link("bridge", "wan"), link("veth", "a/eth0")]), false)
    );
    // Settings of the host may be about any link of it.
    let leads_nowhere = LAB.replace("mode: nat,", "mode: host-only,");
    assert_eq!(look(&leads_nowhere, LAB), inside(&["a"], None, true));
}

#[tokio::test]
async fn an_interrupt_is_rolled_back() {
    let host = Memory::default();
    let (run, sender) = run(&host);
    sender.send(true).unwrap();
    let error = run.converge(&nodes(LAB)).await.unwrap_err();
    assert_eq!(error.kind.exit_code(), 130);
    assert!(host.resources().is_empty());
}

#[tokio::test]
async fn tearing_down_leaves_nothing() {
    let host = Memory::default();
    let (run, _sender) = run(&host);
    run.converge(&nodes(LAB)).await.unwrap();
    let inventory = host.observe(&[]).await.unwrap();
    run.tear_down(&plan::removal(&inventory)).await.unwrap();
    assert!(host.resources().is_empty());
}

/// A host that cannot be looked at any more once something has failed, and whose bridges stay.
#[derive(Default)]
struct Failing {
    inner: Memory,
    blind: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Actuator for Failing {
    async fn observe_after(&self, wanted: &[Node], earlier: Option<Earlier<'_>>) -> Result<Inventory> {
        match self.blind.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(Error::failed("nothing can be seen")),
            false => self.inner.observe_after(wanted, earlier).await,
        }
    }
    async fn create(&self, id: &Id, resource: &Resource) -> Result<()> {
        let done = self.inner.create(id, resource).await;
        self.blind.fetch_or(done.is_err(), std::sync::atomic::Ordering::Relaxed);
        done
    }
    async fn change(&self, id: &Id, wanted: &Resource, found: &Resource) -> Result<()> {
        self.inner.change(id, wanted, found).await
    }
    async fn delete(&self, id: &Id, found: &Resource) -> Result<()> {
        if id.kind == Kind::Bridge {
            return Err(Error::failed("it stays"));
        }
        self.inner.delete(id, found).await
    }
    async fn delete_stray(&self, place: &Place, link: &str) -> Result<()> {
        self.inner.delete_stray(place, link).await
    }
}

#[tokio::test]
async fn what_stays_is_said_even_where_nothing_can_be_seen() {
    let wanted = nodes(LAB);
    let sound = Memory::default();
    run(&sound).0.converge(&wanted).await.unwrap();
    let host = Failing::default();
    host.inner.fail_at(Some(sound.actions() - 1));
    let (_sender, interrupt) = watch::channel(false);
    let run = Run { actuator: &host, progress: &|_| {}, interrupt };
    let error = run.converge(&wanted).await.unwrap_err();
    assert!(format!("{error}").contains("bridge wan could not be rolled back: it stays"), "{error}");
    assert!(host.inner.resources().keys().all(|id| id.kind == Kind::Bridge), "{:?}", host.inner.resources());
}

/// Nobody waits for machines that will never have their turn: neither the rest of the lab, nor who interrupts.
#[tokio::test]
async fn what_waits_for_its_turn_keeps_nothing_else_and_is_given_up_at_an_interrupt() {
    let machines = (0..2 * AT_A_TIME).map(|i| format!("  m{i}: {{ nics: [{{ network: lan }}] }}\n"));
    let text = format!(
        "lab: applies\nnetworks:\n  lan: {{ mode: internal }}\n  z: {{ mode: internal }}\nguests:\n{}  \
         b: {{ kind: namespace, nics: [{{ network: z }}, {{ network: lan }}] }}\n",
        machines.collect::<String>()
    );
    let wanted = nodes_with(&text, LoadOptions::default());
    let fabric =
        wanted.iter().filter(|node| node.id.kind != Kind::Domain && !plan::is_nothing(&node.resource));
    let fabric = fabric.count();
    let host = Memory::default();
    host.room_for(1);
    let (run, sender) = run(&host);
    let stop = async {
        while host.resources().len() < fabric + 1 {
            tokio::task::yield_now().await;
        }
        sender.send(true).unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        ended = run.converge(&wanted) => ended.unwrap_err(),
        () = stop => unreachable!(),
        () = tokio::time::sleep(std::time::Duration::from_secs(20)) => panic!("it waits"),
    };
    assert_eq!(error.kind, ErrorKind::Interrupted, "{error}");
    assert_eq!(host.resources(), std::collections::BTreeMap::new());
}
