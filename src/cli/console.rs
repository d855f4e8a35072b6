//! `netloom console`.

use clap::Args;

use super::context::{Lab, lab_and_guest};
use super::{block_on, exec, ui};
use crate::error::{Error, Result};
use crate::host::console;
use crate::host::lab::LabHost;
use crate::resource::{Place, names};
use crate::topology::GuestKind;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// LAB/GUEST
    #[arg(value_name = "LAB/GUEST")]
    guest: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let (name, guest) = lab_and_guest(&arguments.guest)?;
    let lab = Lab::find(&name)?;
    let topology = lab.topology()?;
    if let Some(code) = lab.enter()? {
        return Ok(code);
    }
    if exec::kind(&topology, &guest)? == GuestKind::Namespace {
        // A namespace guest has no console of its own: a shell inside is the nearest thing.
        ui::say("a shell in the guest; leave it with `exit`");
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        return exec::in_place(&Place::Netns(names::netns(&name, &guest)), &[shell]);
    }
    let path = block_on(async {
        let connect = lab.info.connect.clone();
        let host = LabHost::new(&lab.state, &name, &lab.file_directory(), connect, ui::sayer());
        let domains = host.hypervisor().await?.list().await?;
        let wanted = names::domain(&name, &guest);
        domains.into_iter().find(|domain| domain.name == wanted).and_then(|domain| domain.console).ok_or_else(
            || Error::failed(format!("guest `{guest}` does not run")).hint("`netloom up` starts it again"),
        )
    })?;
    console::attach(std::path::Path::new(&path))?;
    Ok(0)
}
