//! `netloom exec`.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::context::{Lab, lab_and_guest};
use super::{block_on, ui};
use crate::error::{Context, Error, Result};
use crate::host::lab::LabHost;
use crate::host::{agent, netns};
use crate::resource::{Place, names};
use crate::topology::{GuestKind, Topology};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// LAB/GUEST, or LAB/host for the host as the lab sees it
    #[arg(value_name = "LAB/GUEST")]
    guest: String,
    /// Seconds after which a command in a VM is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let (name, guest) = lab_and_guest(&arguments.guest)?;
    let lab = Lab::find(&name)?;
    let topology = lab.topology()?;
    if let Some(code) = lab.enter()? {
        return Ok(code);
    }
    if guest == "host" {
        return in_place(&Place::Host, &arguments.command);
    }
    match kind(&topology, &guest)? {
        GuestKind::Namespace => in_place(&Place::Netns(names::netns(&name, &guest)), &arguments.command),
        GuestKind::Vm => in_vm(&lab, &name, &guest, arguments),
    }
}

/// What a guest is made of.
pub(super) fn kind(topology: &Topology, guest: &str) -> Result<GuestKind> {
    topology.guests.get(guest).map(|guest| guest.kind).ok_or_else(|| {
        let names: Vec<&str> = topology.guests.keys().map(String::as_str).collect();
        Error::input(format!("lab `{}` has no guest `{guest}`", topology.lab))
            .hint(format!("its guests: {}, and host", names.join(", ")))
    })
}

/// Becomes a command in a namespace: its signals, its terminal and its exit status are then nobody's but its own.
/// Returns only when that fails. Must be called while the process has one thread.
pub(super) fn in_place(place: &Place, command: &[String]) -> Result<u8> {
    let Some((program, rest)) = command.split_first() else { return Ok(0) };
    if let Place::Netns(name) = place {
        let namespace = netns::open(name).map_err(|e| e.hint("`netloom status` says what runs"))?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
            .context(|| format!("cannot enter network namespace `{name}`"))?;
    }
    let e = Command::new(program).args(rest).exec();
    Err(Error::host(format!("cannot run `{program}`")).caused_by(e))
}

fn in_vm(lab: &Lab, name: &str, guest: &str, arguments: &Arguments) -> Result<u8> {
    let output = block_on(async {
        let connect = lab.info.connect.clone();
        let host = LabHost::new(&lab.state, name, &lab.file_directory(), connect, ui::sayer());
        let hypervisor = host.hypervisor().await?;
        let domain = names::domain(name, guest);
        let timeout = Duration::from_secs(arguments.timeout);
        let done = agent::exec(hypervisor.as_ref(), &domain, &arguments.command, None, timeout).await;
        if done.is_err() && agent::ping(hypervisor.as_ref(), &domain).await.is_err() {
            let hint = format!(
                "it needs a guest that runs, and qemu-guest-agent in it; `netloom console {name}/{guest}` needs neither agent nor network"
            );
            return done.map_err(|e| e.hint(hint));
        }
        done
    })?;
    let failed = || "cannot write the command's output".to_owned();
    std::io::stdout().write_all(&output.stdout).context(failed)?;
    std::io::stderr().write_all(&output.stderr).context(failed)?;
    Ok(u8::try_from(output.status).unwrap_or(4))
}
