//! The cases.

use crate::rig::{Rig, namespace, namespaces, text};

pub(crate) type Case = (&'static str, fn());

pub(crate) const ALL: &[Case] = &[
    ("the_world_is_there_and_answers", the_world_is_there_and_answers),
    ("an_ordinary_user_has_the_same_world", an_ordinary_user_has_the_same_world),
];

fn addresses(json: &serde_json::Value, link: &str) -> Vec<String> {
    let links = json.as_array().unwrap();
    let link = links.iter().find(|l| l["ifname"] == link).unwrap_or_else(|| panic!("no {link} in {json}"));
    link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["scope"] == "global")
        .map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]))
        .collect()
}

fn check_world(rig: &Rig, lab: &str) {
    let seen = rig.json(lab, &["ip", "-j", "addr"]);
    assert_eq!(addresses(&seen, "eth0"), ["192.0.2.10/24", "2001:db8:1::10/64"]);
    assert_eq!(seen.as_array().unwrap().len(), 2, "only lo and eth0: {seen}");
    for target in ["192.0.2.1", "192.0.2.20", "198.51.100.10", "2001:db8:1::1", "2001:db8:1::20", "2001:db8:2::10"] {
        rig.run(lab, &["ping", "-n", "-c1", "-W2", target]);
    }
    let answer = |address: &str| {
        rig.run(lab, &["bash", "-c", &format!("exec 3<>/dev/tcp/{address}/80; cat <&3")])
    };
    assert!(answer("192.0.2.20").starts_with("lan"));
    assert!(answer("2001:db8:2::10").starts_with("outside"));
}

fn the_world_is_there_and_answers() {
    let rig = Rig::new("world");
    let info = rig.create("one");
    check_world(&rig, "one");
    let (net, mnt) = (namespace(info.pid, "net"), namespace(info.pid, "mnt"));
    assert!(namespaces("net").contains(&net) && namespaces("mnt").contains(&mnt));
    rig.stop("one");
    assert_eq!(rig.left(), Vec::<String>::new());
    assert!(!namespaces("net").contains(&net) && !namespaces("mnt").contains(&mnt));
    let refused = rig.inside("one", &["true"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
}

fn an_ordinary_user_has_the_same_world() {
    let rig = Rig::unprivileged("user");
    let info = rig.create("one");
    check_world(&rig, "one");
    // Root inside, the user outside; files made inside are the user's.
    assert_eq!(rig.run("one", &["id", "-u"]).trim(), "0");
    let file = rig.state.join("made-inside");
    rig.run("one", &["touch", file.to_str().unwrap()]);
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(&file).unwrap().uid();
    assert_eq!(owner, std::fs::metadata(format!("/proc/{}", info.pid)).unwrap().uid());
    assert_eq!(owner, std::fs::metadata(&rig.state).unwrap().uid());
    rig.stop("one");
    assert_eq!(rig.left(), Vec::<String>::new());
}
