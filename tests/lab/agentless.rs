//! A VM whose image has no guest agent: it is ready when it answers, and what can be done without asking it works.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cloud::cloud_image_without_agent;
use crate::rig::Rig;

/// On a network with DHCP, on one with a static address, and on one where the host has no leg to see it from.
fn file(rig: &Rig) -> String {
    let image = cloud_image_without_agent();
    let text = format!(
        "lab: agentless
networks:
  lan: {{ mode: nat, subnet: [10.83.0.0/24, 'fd83::/64'] }}
  mgmt: {{ mode: host-only, subnet: 10.83.2.0/24 }}
  back: {{ mode: internal }}
guests:
  cloud:
    image: {}
    memory: 512 MiB
    nics:
      - {{ network: lan }}
      - {{ network: mgmt, address: 10.83.2.10/24 }}
      - {{ network: back, address: 10.83.1.10/24 }}
    serve: [tcp/80]
  user:
    kind: namespace
    nics:
      - {{ network: lan }}
      - {{ network: back, address: 10.83.1.20/24 }}
expect:
  - {{ from: user, to: cloud, via: lan, verdict: reachable }}
  - {{ from: user, to: cloud, service: tcp/80, via: lan, verdict: reachable }}
  - {{ from: user, to: cloud, service: tcp/80, via: back, verdict: reachable }}
  - {{ from: host, to: cloud, service: tcp/80, via: mgmt, verdict: reachable }}
  - {{ from: host, to: cloud, service: tcp/80, via: back, verdict: blocked }}
  - {{ from: cloud, to: user, via: back, verdict: reachable }}
",
        image.display()
    );
    rig.file("agentless.yaml", &text)
}

fn guest<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["guests"].as_array().unwrap().iter().find(|guest| guest["name"] == name).unwrap()
}

/// Addresses of a guest's NICs, in the file's order.
fn addresses(guest: &Value) -> Vec<Vec<String>> {
    let texts = |interface: &Value| -> Vec<String> {
        interface["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect()
    };
    guest["interfaces"].as_array().unwrap().iter().map(texts).collect()
}

#[test]
#[ignore = "slow"]
fn a_vm_without_an_agent_is_ready_when_it_answers() {
    let rig = Rig::new();
    let file = file(&rig);
    let began = Instant::now();
    let ended = rig.run(&["up", "--json", "--sandbox", "--timeout", "300", &file]);
    eprintln!("ready after {:?}", began.elapsed());
    ended.said(0, &["cloud is ready: answers ARP or ND; no guest agent"]);
    let up = ended.json();
    let cloud = guest(&up, "cloud");
    assert_eq!(cloud["agent"], false);
    assert!(guest(&up, "user").get("agent").is_none());

    // What it is said to have is what the kernel knows of its MAC; nobody can see the network without a leg.
    let [lan, mgmt, back] = <[_; 3]>::try_from(addresses(cloud)).unwrap();
    assert!(lan.iter().any(|address| address.starts_with("10.83.0.")), "{lan:?}");
    assert_eq!((mgmt, back), (vec!["10.83.2.10/24".to_owned()], vec![]));
    let known: Value = serde_json::from_str(&rig.sh("agentless/host", "ip -j neigh")).unwrap();
    let mac = |ip: &str| {
        let entry = known.as_array().unwrap().iter().find(|entry| entry["dst"] == ip);
        entry.unwrap_or_else(|| panic!("{ip}: {known}"))["lladdr"].as_str().unwrap().to_owned()
    };
    let xml = rig.state.join("labs/agentless/guests/cloud/made.json");
    let made = std::fs::read_to_string(xml).unwrap();
    for address in lan.iter().chain(["10.83.2.10/24".to_owned()].iter()) {
        let mac = mac(address.split('/').next().unwrap());
        assert!(made.contains(&mac), "{address} is {mac}'s: {made}");
    }
    let status = rig.json(&["status", "--json", "agentless"]);
    let seen = guest(&status, "cloud");
    assert_eq!((&seen["running"], &seen["agent"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(addresses(seen), addresses(cloud));
    let text = rig.ok(&["status", "agentless"]);
    assert!(text.contains("cloud has no guest agent that answers"), "{text}");

    measured(&rig);
    rig.run(&["exec", "agentless/cloud", "--", "true"]).said(4, &["guest agent", "netloom console"]);
    // It was found to have no agent: there is nothing to wait for any more.
    let began = Instant::now();
    let again = rig.json(&["up", "--json", &file]);
    assert_eq!(again["changes"].as_array().unwrap().len(), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    rig.ok(&["down", "agentless"]);
    rig.assert_gone();
}

/// Probes to the guest are answered; one from it cannot be made, and says why.
fn measured(rig: &Rig) {
    let ended = rig.run(&["test", "--json", "agentless"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let document = ended.json();
    let (from, to): (Vec<&Value>, Vec<&Value>) =
        document["measurements"].as_array().unwrap().iter().partition(|one| one["from"] == "cloud");
    assert!(to.len() >= 5 && to.iter().all(|one| one["ok"] == true), "{to:?}");
    assert!(!from.is_empty());
    for one in from {
        assert_eq!(one["verdict"], "inconclusive", "{one}");
        assert!(one["detail"].as_str().unwrap().contains("no guest agent"), "{one}");
    }
}
