//! The seed's files for cloud-init. They are YAML by name; JSON is a subset of it that needs no care with quoting.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::SeedFile;
use super::console::BEGUN;
use super::facts::{dynamic, interface_towards, is_bare};
use crate::error::{Context, Result};
use crate::guest::config::{GuestConfig, NicConfig};
use crate::topology::{Addressing, Interface, Protocol};

/// Answers served ports; every image with cloud-init has Python.
const SERVE: &str = include_str!("../serve.py");
/// A root shell on the serial console, as the built-in image has.
const CONSOLE: &str = "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 %I $TERM\n";

/// meta-data, network-config and user-data; `own` are the files for `/etc/netloom`.
pub(super) fn render(config: &GuestConfig, own: &[SeedFile]) -> Result<Vec<SeedFile>> {
    let network = pretty(&network(config))?;
    let user = format!("#cloud-config\n{}", pretty(&user(config, own))?);
    // A new id makes cloud-init apply a changed seed instead of taking it for one it has seen.
    let mut hash = Sha256::new_with_prefix(&network);
    hash.update(&user);
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let meta = pretty(&json!({
        "instance-id": format!("netloom-{}-{}-{digest}", config.lab, config.name),
        "local-hostname": config.name,
    }))?;
    let file = |path: &str, text| SeedFile { path: path.into(), text };
    Ok(vec![file("meta-data", meta), file("network-config", network), file("user-data", user)])
}

fn pretty(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context(|| "cannot render cloud-init data".into())?;
    Ok(text + "\n")
}

fn network(config: &GuestConfig) -> Value {
    let (mut ethernets, mut vlans) = (Map::new(), Map::new());
    for nic in &config.nics {
        ethernets.insert(nic.name.clone(), Value::Object(ethernet(config, nic)));
        for interface in &nic.interfaces {
            let Some(vid) = interface.vid else { continue };
            let mut vlan = addressing(config, interface);
            vlan.insert("id".into(), json!(vid));
            vlan.insert("link".into(), json!(nic.name));
            vlans.insert(interface.name.clone(), Value::Object(vlan));
        }
    }
    let mut out = json!({ "version": 2, "ethernets": ethernets });
    if let Some(out) = out.as_object_mut().filter(|_| !vlans.is_empty()) {
        out.insert("vlans".into(), Value::Object(vlans));
    }
    out
}

fn ethernet(config: &GuestConfig, nic: &NicConfig) -> Map<String, Value> {
    let own = nic.interfaces.iter().find(|interface| interface.vid.is_none());
    let mut out = own.map_or_else(quiet, |interface| addressing(config, interface));
    if is_bare(nic) {
        out.insert("link-local".into(), json!([]));
    }
    out.insert("match".into(), json!({ "macaddress": nic.mac.to_string() }));
    out.insert("set-name".into(), json!(nic.name));
    out.insert("mtu".into(), json!(nic.mtu));
    out
}

/// An interface without addresses. `optional` keeps a boot from waiting for what may come later, or never; where all
/// are, though, systemd's `networkd-wait-online` waits its two minutes for any one to come online.
fn quiet() -> Map<String, Value> {
    let value = json!({ "dhcp4": false, "dhcp6": false, "accept-ra": false, "optional": true });
    value.as_object().cloned().unwrap_or_default()
}

fn addressing(config: &GuestConfig, interface: &Interface) -> Map<String, Value> {
    let mut out = quiet();
    match &interface.addressing {
        Addressing::None => {
            out.insert("link-local".into(), json!([]));
        }
        Addressing::Dynamic { v4, .. } => {
            out.insert("dhcp4".into(), json!(v4));
            out.insert("accept-ra".into(), json!(true));
            // Only with nothing static: then there is no other interface whose coming can be waited for.
            out.insert("optional".into(), json!(has_static(config)));
            let metric =
                dynamic(config).find(|(other, _)| other.name == interface.name).map(|(_, metric)| metric);
            if dynamic(config).count() > 1 {
                out.insert("dhcp4-overrides".into(), json!({ "route-metric": metric }));
            }
        }
        Addressing::Static(addresses) => {
            out.insert("optional".into(), json!(false)); // needs nobody else, so it is there at once
            out.insert(
                "addresses".into(),
                json!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
            );
            if !config.nameservers.is_empty() {
                out.insert("nameservers".into(), json!({ "addresses": config.nameservers }));
            }
        }
    }
    let routes = routes(config, interface);
    if !routes.is_empty() {
        out.insert("routes".into(), Value::Array(routes));
    }
    out
}

fn has_static(config: &GuestConfig) -> bool {
    let interfaces = config.nics.iter().flat_map(|nic| &nic.interfaces);
    interfaces.into_iter().any(|interface| matches!(interface.addressing, Addressing::Static(_)))
}

/// Routes through an interface. One whose gateway lies in no static subnet goes to the first dynamic interface.
fn routes(config: &GuestConfig, interface: &Interface) -> Vec<Value> {
    let first_dynamic = dynamic(config).next().map(|(interface, _)| interface);
    let through = |via| interface_towards(config, via).or(first_dynamic);
    let own = config
        .routes
        .iter()
        .filter(|route| through(route.via).is_some_and(|other| other.name == interface.name));
    own.map(|route| json!({ "to": route.to.to_string(), "via": route.via })).collect()
}

fn user(config: &GuestConfig, own: &[SeedFile]) -> Value {
    let mut files: Vec<Value> =
        own.iter().map(|file| entry(&format!("/etc/netloom/{}", file.path), &file.text)).collect();
    let units = "/etc/systemd/system";
    let serves = config.serve.iter().any(|service| service.protocol != Protocol::Icmp);
    if config.ruleset.is_some() || config.forwarding {
        files.push(entry(&format!("{units}/netloom-protect.service"), &protect_unit()));
    }
    if config.dnsmasq.is_some() {
        files.push(entry(
            &format!("{units}/netloom-dnsmasq.service"),
            &service_unit("DHCP and DNS", "dnsmasq"),
        ));
    }
    if serves {
        files.push(entry("/etc/netloom/serve.py", SERVE));
        files.push(entry(&format!("{units}/netloom-serve.service"), &service_unit("responders", "serve")));
    }
    files.push(entry(&format!("{units}/netloom-settle.service"), &settle_unit()));
    files.push(entry(&format!("{units}/serial-getty@ttyS0.service.d/netloom.conf"), CONSOLE));
    json!({
        "hostname": config.name,
        "ssh_pwauth": false,
        "write_files": files,
        "bootcmd": [["sh", "-c", format!("echo '{BEGUN}' >/dev/ttyS0")]],
        "runcmd": [["sh", "/etc/netloom/setup.sh", "cloud"]],
    })
}

fn entry(path: &str, text: &str) -> Value {
    json!({ "path": path, "permissions": "0644", "content": text })
}

/// Before any interface is configured, on every boot but the first (when cloud-init has yet to write the unit): until
/// it has run, forwarding is off.
fn protect_unit() -> String {
    "[Unit]\nDescription=netloom: ruleset, then forwarding\nDefaultDependencies=no\nAfter=local-fs.target systemd-modules-load.service systemd-sysctl.service\n\
     Wants=network-pre.target\nBefore=network-pre.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
     ExecStart=/bin/sh /etc/netloom/setup.sh protect\n\n[Install]\nWantedBy=sysinit.target\n"
        .into()
}

fn service_unit(what: &str, step: &str) -> String {
    format!(
        "[Unit]\nDescription=netloom: {what}\nAfter=network-pre.target netloom-protect.service\n\n[Service]\n\
         ExecStart=/bin/sh /etc/netloom/setup.sh {step}\nRestart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

fn settle_unit() -> String {
    "[Unit]\nDescription=netloom: says when the guest is ready\nAfter=netloom-protect.service netloom-dnsmasq.service netloom-serve.service\n\n\
     [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh /etc/netloom/setup.sh settle\n\
     ExecStartPost=/bin/sh /etc/netloom/setup.sh announce\n\n[Install]\nWantedBy=multi-user.target\n"
        .into()
}
