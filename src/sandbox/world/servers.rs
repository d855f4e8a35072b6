//! The processes of the world: DHCP and router advertisements on the LAN, and the services of the two stand-ins.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::build::ROUTER_LINK;
use super::{
    LAN_ADDRESSES, LAN_NETNS, OUTSIDE_ADDRESSES, OUTSIDE_NETNS, ROUTER_ADDRESSES, ROUTER_NETNS, SERVICES,
    Segment, has_ipv6,
};
use crate::error::{Context, Error, Result};
use crate::host::{listening, netns, service};
use crate::resource::{HostPort, Place};
use crate::sandbox::SERVE_VERB;
use crate::topology::Service;

/// Where the world keeps its files, in the sandbox's own `/run`.
const DIRECTORY: &str = "/run/world";
/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process of the world.
#[derive(Debug)]
pub(in crate::sandbox) struct StandIn {
    /// For messages.
    pub(in crate::sandbox) name: &'static str,
    /// Process id inside.
    pub(in crate::sandbox) pid: i32,
}

/// Starts all of them at once, then waits until each listens. `segments` are the VLANs that the LAN has.
pub(super) fn start(segments: &[Segment]) -> Result<Vec<StandIn>> {
    let mut servers = vec![
        (ROUTER_NETNS, start_router(segments)?, vec!["tcp/53", "udp/67"]),
        (LAN_NETNS, start_services(LAN_NETNS)?, SERVICES.to_vec()),
        (OUTSIDE_NETNS, start_services(OUTSIDE_NETNS)?, SERVICES.to_vec()),
    ];
    let mut stand_ins = Vec::new();
    for (name, child, services) in &mut servers {
        wait(name, child, services)?;
        let pid = i32::try_from(child.id()).context(|| "a process id is out of range".into())?;
        stand_ins.push(StandIn { name, pid });
    }
    Ok(stand_ins)
}

/// dnsmasq hands out leases and advertises the IPv6 prefix, and knows the names `router`, `lan` and `outside`.
fn start_router(segments: &[Segment]) -> Result<Child> {
    fs::create_dir_all(DIRECTORY).context(|| format!("cannot create {DIRECTORY}"))?;
    let path = format!("{DIRECTORY}/router.conf");
    fs::write(&path, router_configuration(segments, has_ipv6()))
        .context(|| format!("cannot write {path}"))?;
    let mut command = Command::new("dnsmasq");
    // In a user namespace where setgroups is off, dnsmasq must not be given a group, not even its default.
    command.args(["--keep-in-foreground", "--user=root", "--group="]).arg(format!("--conf-file={path}"));
    spawn(ROUTER_NETNS, command)?.map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::host("dnsmasq is not installed, which a sandbox needs").hint(
            "`sudo apt install dnsmasq-base` (Debian, Ubuntu), `sudo dnf install dnsmasq` (Fedora), \
             `sudo pacman -S dnsmasq` (Arch)",
        ),
        _ => Error::failed("cannot start the DHCP server of the sandbox's LAN").caused_by(e),
    })
}

fn router_configuration(segments: &[Segment], ipv6: bool) -> String {
    let [v4, v6] = ROUTER_ADDRESSES;
    let mut text = format!(
        "except-interface=lo\nbind-interfaces\nno-resolv\nno-hosts\nlog-facility=-\nquiet-ra\n\
         dhcp-leasefile={DIRECTORY}/leases\ndhcp-authoritative\nno-ping\n"
    );
    if ipv6 {
        text.push_str("enable-ra\n");
    }
    let mut serve = |link: &str, leases: &str, prefix: &dyn std::fmt::Display| {
        text.push_str(&format!("interface={link}\ndhcp-range={leases},10m\n"));
        if ipv6 {
            // Seconds between advertisements, and how long the router stays a default one.
            text.push_str(&format!("ra-param={link},10,1800\ndhcp-range={prefix},ra-only,64,30m\n"));
        }
    };
    serve(ROUTER_LINK, "192.0.2.100,192.0.2.199,255.255.255.0", &"2001:db8:1::");
    for segment in segments {
        let [first, last] = segment.leases;
        serve(&segment.link(ROUTER_LINK), &format!("{first},{last},255.255.255.128"), &segment.prefix);
    }
    let names = [(ROUTER_NETNS, [v4, v6]), (LAN_NETNS, LAN_ADDRESSES), (OUTSIDE_NETNS, OUTSIDE_ADDRESSES)];
    for (name, [v4, v6]) in names {
        text.push_str(&format!("host-record={name},{v4},{v6}\n"));
    }
    text
}

fn start_services(label: &'static str) -> Result<Child> {
    let mut command = Command::new(service::own_program()?);
    command.arg(SERVE_VERB).arg(label).args(SERVICES);
    spawn(label, command)?.context(|| format!("cannot start the services of `{label}`"))
}

/// Runs a command in one of the namespaces; what it says goes to the sandbox's log.
fn spawn(namespace: &str, mut command: Command) -> Result<std::io::Result<Child>> {
    let log = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .context(|| "cannot hand on the sandbox's log".into())?;
    command.stdin(Stdio::null()).stdout(log).current_dir("/");
    netns::within(&Place::Netns(namespace.to_owned()), move || command.spawn())
}

fn wait(name: &str, child: &mut Child, services: &[&'static str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let open = netns::within(&Place::Netns(name.to_owned()), listening::ports)?;
        let served = |service: &str| {
            let is = |port: &HostPort| {
                Service { protocol: port.protocol, port: port.ports.0 }.to_string() == service
            };
            open.iter().any(is)
        };
        let Some(missing) = services.iter().find(|service| !served(service)) else { return Ok(()) };
        if let Some(status) = child.try_wait().context(|| format!("cannot watch the server of `{name}`"))? {
            return Err(Error::failed(format!("the server of the sandbox's `{name}` ended at once"))
                .caused_by(status));
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::failed(format!("the sandbox's `{name}` does not answer on {missing}")));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
