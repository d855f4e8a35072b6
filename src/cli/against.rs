//! `netloom compare --against`: the hidden verb by which it builds and measures the lab of a real thing.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::context::{Lab, directory_of, load};
use super::up::{Signals, in_new_sandbox, listen, prepare_images};
use super::{block_on, ui};
use crate::apply::stopped;
use crate::compare::against::system::System;
use crate::compare::against::{daemon, lab, things};
use crate::compare::{cases, measure};
use crate::error::{Context, Error, Kind, Result};
use crate::host::lab::LabHost;
use crate::host::labdir;
use crate::sandbox;
use crate::topology::{GuestKind, Topology};

/// Seconds to wait for guests to become ready: namespaces, VMs.
const READY: [u64; 2] = [30, 300];

/// libvirt's DHCP server looks for three seconds whether somebody has the address already, for one client at a time.
const LEASES: Duration = Duration::from_secs(10);

/// What the words of the verb say.
struct Request {
    thing: &'static things::Thing,
    kind: GuestKind,
    case: cases::Case,
}

impl Request {
    fn read([construct, name, kind, index]: [&str; 4]) -> Result<Self> {
        let thing = things::of(construct)
            .find(|thing| thing.name == name)
            .ok_or_else(|| Error::input(format!("there is no `{name}` of `{construct}`")))?;
        let index = index.parse().map_err(|_| Error::input(format!("`{index}` is not a state")))?;
        let kind = if kind == "vm" { GuestKind::Vm } else { GuestKind::Namespace };
        Ok(Self { thing, kind, case: cases::find(construct, index)? })
    }

    /// The lab's file as the real thing's.
    fn topology(&self, file: &Path) -> Result<Topology> {
        let mut topology = load(file, Some(GuestKind::Namespace))?;
        lab::adapt(&mut topology, self.thing, self.kind);
        Ok(topology)
    }
}

/// `__against up|measure CONSTRUCT THING KIND STATE FILE|LAB`.
pub(super) fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["up", construct, name, kind, index, file] => {
            up(&Request::read([construct, name, kind, index])?, Path::new(file))
        }
        ["measure", construct, name, kind, index, lab] => {
            measure_lab(&Request::read([construct, name, kind, index])?, lab)
        }
        _ => Err(Error::input("an argument is missing")),
    }
}

fn up(request: &Request, file: &Path) -> Result<()> {
    let topology = request.topology(file)?;
    let lab = Lab::find(&topology.lab)?;
    if !sandbox::inside() {
        request.thing.system.is_possible()?;
        prepare_images(&topology, &lab.state, &directory_of(file)?)?;
        return match in_new_sandbox(&lab, false)? {
            0 => Ok(()),
            code => std::process::exit(i32::from(code)),
        };
    }
    block_on(bring_up(request, &topology, lab, file))
}

async fn bring_up(request: &Request, topology: &Topology, mut lab: Lab, file: &Path) -> Result<()> {
    let _lock = lab.dir.lock()?;
    let directory = directory_of(file)?;
    lab.info.connect = (request.thing.system == System::Libvirt).then(|| daemon::URI.to_owned());
    lab.info.guests = Some(GuestKind::Namespace);
    lab.info.file_directory = Some(directory.clone());
    let host = LabHost::new(&lab.state, &topology.lab, &directory, lab.info.connect.clone(), ui::sayer());
    let (sender, mut interrupt) = watch::channel(false);
    tokio::spawn(listen(Signals::new()?, sender, None));
    let patience = Duration::from_secs(READY[usize::from(request.kind == GuestKind::Vm)]);
    let asked = interrupt.clone();
    tokio::select! {
        biased;
        built = lab::build(request.thing, topology, &host, patience, &ui::say, asked) => built?,
        () = stopped(&mut interrupt) => return Err(Error::new(Kind::Interrupted, "interrupted")),
    }
    lab.dir.set_info(&lab.info)?;
    let text = std::fs::read_to_string(file).context(|| "cannot copy the lab's file".into())?;
    labdir::write(&lab.dir.file(), &text)
}

fn measure_lab(request: &Request, name: &str) -> Result<()> {
    let lab = Lab::find(name)?;
    let topology = request.topology(&lab.dir.file())?;
    if let Some(code) = lab.enter()? {
        std::process::exit(i32::from(code));
    }
    let connect = lab.info.connect.clone();
    let host = LabHost::new(&lab.state, &topology.lab, &lab.file_directory(), connect, ui::sayer());
    let waits = measure::Waits { leases: LEASES, ..measure::Waits::default() };
    ui::json(&block_on(measure::measure(&request.case, &topology, &host, waits))?)
}
