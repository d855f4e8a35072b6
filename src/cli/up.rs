//! `netloom up`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::sync::watch;

use super::context::{Lab, directory_of, load, look_ahead, needs_root};
use super::{block_on, ui};
use crate::apply::{Run, ready, stopped};
use crate::error::{Context, Error, Kind, Result};
use crate::host::lab::LabHost;
use crate::host::labdir::Staged;
use crate::host::links::Ahead;
use crate::image;
use crate::plan::Summary;
use crate::report;
use crate::resource::desired;
use crate::sandbox;
use crate::topology::{GuestKind, Image, Topology};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The lab's file
    #[arg(default_value = "netloom.yaml")]
    file: PathBuf,
    /// Build it in a private network namespace that plays the host, with a LAN and an outside; needs no privilege
    #[arg(long)]
    sandbox: bool,
    /// Make every guest of this kind, whatever the file says
    #[arg(long, value_name = "KIND")]
    guests: Option<Guests>,
    /// libvirt to use, such as qemu:///system [default: the system daemon where one answers, else an embedded one]
    #[arg(long, value_name = "URI")]
    connect: Option<String>,
    /// When guests do not become ready, leave the lab for a look instead of rolling back
    #[arg(long)]
    keep: bool,
    /// Seconds to wait for each guest to become ready
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Guest kinds on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Guests {
    /// libvirt domains
    Vm,
    /// Network namespaces: no hypervisor, no image
    Namespace,
}

impl From<Guests> for GuestKind {
    fn from(kind: Guests) -> Self {
        match kind {
            Guests::Vm => GuestKind::Vm,
            Guests::Namespace => GuestKind::Namespace,
        }
    }
}

/// What `up --json` prints.
#[derive(Serialize)]
struct Document {
    lab: String,
    sandbox: bool,
    changes: Vec<Summary>,
    guests: Vec<ready::ReadyGuest>,
    seconds: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    // Into a new sandbox goes who has one thread, and it has links of its own.
    let mut begun = if arguments.sandbox && !sandbox::inside() { None } else { look_ahead() };
    let mut topology = load(&arguments.file, arguments.guests.map(GuestKind::from))?;
    let lab = Lab::find(&topology.lab)?;
    let mut guests = arguments.guests.map(GuestKind::from);
    if guests.is_none() && lab.info.guests.is_some() {
        // A lab that is up stays what it was brought up as, until the command line says otherwise.
        guests = lab.info.guests;
        topology = load(&arguments.file, guests)?;
    }
    if !sandbox::inside() {
        prepare_images(&topology, &lab.state, &directory_of(&arguments.file)?)?;
        if arguments.sandbox && !lab.sandbox_lives() {
            return in_new_sandbox(&lab, arguments.keep);
        }
        begun = lab.go_on(begun);
        if let Some(code) = lab.enter()? {
            return Ok(code);
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(needs_root());
        }
    }
    let code = block_on(bring_up(arguments, guests, &topology, lab, begun));
    std::mem::forget(topology); // as what it was built from is forgotten in `build`
    code
}

/// Builds or fetches the images that guests boot, before anything else: it takes longest and fails most easily, and a
/// sandbox has no way to the outside.
pub(super) fn prepare_images(topology: &Topology, state: &Path, directory: &Path) -> Result<()> {
    let cache = state.join("images");
    let mut images: Vec<&Image> = topology
        .guests
        .values()
        .filter(|guest| guest.kind == GuestKind::Vm)
        .map(|guest| &guest.image)
        .collect();
    images.dedup();
    for wanted in images {
        match wanted {
            Image::BuiltIn => drop(image::built_in(&cache, &mut |line| ui::say(line))?),
            Image::Disk { .. } => drop(image::resolve(&cache, wanted, directory)?),
        }
    }
    Ok(())
}

/// Makes the sandbox, runs this command inside, and removes the sandbox again if that fails.
pub(super) fn in_new_sandbox(lab: &Lab, keep: bool) -> Result<u8> {
    if lab.info.sandbox.is_none() && lab.dir.file().exists() {
        return Err(Error::failed(format!("lab `{}` exists on the host itself", lab.dir.lab()))
            .hint(format!("`netloom down {}` first, or leave `--sandbox` out", lab.dir.lab())));
    }
    // None may end this process while there is a sandbox to remove: they are answered at the steps that wait.
    let _interrupts = sandbox::Interrupts::listen()?;
    let lock = lab.dir.lock()?;
    ui::say("making a sandbox");
    let sandbox = match sandbox::create(&lab.dir) {
        Ok(sandbox) => sandbox,
        Err(e) => {
            if !lab.dir.file().exists() {
                lab.dir.remove()?;
            }
            return Err(e);
        }
    };
    let held = sandbox::hold(&sandbox)?;
    drop(lock);
    match sandbox::enter(&sandbox) {
        Ok(0) => Ok(0),
        Ok(code) if keep && code != Kind::Interrupted.exit_code() => Ok(code),
        other => {
            held.stop()?;
            lab.dir.remove()?;
            other
        }
    }
}

async fn bring_up(
    arguments: &Arguments,
    guests: Option<GuestKind>,
    topology: &Topology,
    mut lab: Lab,
    begun: Option<Ahead>,
) -> Result<u8> {
    let started = Instant::now();
    // From the first directory on: what ends this process also clears what it made.
    let signals = Signals::new()?;
    let _lock = lab.dir.lock()?;
    let fresh = !lab.dir.file().exists(); // only now: another `up` may have built it a moment ago
    if arguments.connect.is_some() {
        lab.info.connect.clone_from(&arguments.connect);
    }
    let directory = directory_of(&arguments.file)?;
    let host = LabHost::new(&lab.state, &topology.lab, &directory, lab.info.connect.clone(), ui::sayer())
        .after(begun);
    lab.info.guests = guests;
    lab.info.file_directory = Some(directory);
    let (changes, ready) = match build(arguments, topology, &host, &lab, signals).await {
        Ok(built) => built,
        Err(e) => {
            // A sandbox's directory goes with the sandbox, by the hand that made it.
            if fresh && !sandbox::inside() && !(arguments.keep && e.kind != Kind::Interrupted) {
                return Err(host.remove_files().await.err().into_iter().fold(e, Error::caused_by));
            }
            return Err(e);
        }
    };
    let document = Document {
        lab: topology.lab.clone(),
        sandbox: sandbox::inside(),
        changes,
        guests: ready,
        seconds: started.elapsed().as_secs_f64(),
    };
    show(&document, arguments.json)?;
    Ok(0)
}

async fn build(
    arguments: &Arguments,
    topology: &Topology,
    host: &LabHost,
    lab: &Lab,
    signals: Signals,
) -> Result<(Vec<Summary>, Vec<ready::ReadyGuest>)> {
    let (sender, interrupt) = watch::channel(false);
    tokio::spawn(listen(signals, sender, Some(topology.lab.clone())));
    let text = std::fs::read_to_string(&arguments.file).context(|| "cannot copy the lab's file".into())?;
    let record = lab.dir.stage(&lab.info, &text)?;
    if topology.guests.values().any(|guest| guest.kind == GuestKind::Vm) {
        // Whether there is any libvirt shows here, before anything is built.
        host.hypervisor().await?;
    }
    let run = Run { actuator: host, progress: &ui::say, interrupt: interrupt.clone() };
    let begun = run.begin().await?;
    let wanted = desired::nodes(topology, &crate::host::service::own_program()?)?;
    let converged = run.converge_from(begun, &wanted).await?;
    if sandbox::inside() {
        sandbox::world::add_return_routes(&routed_subnets(topology)).await?;
    }
    let patience = Duration::from_secs(arguments.timeout);
    let mut interrupt = interrupt;
    let waited = tokio::select! {
        biased;
        waited = ready::wait(topology, host, &converged.inventory.places, patience, &ui::say) => waited,
        () = stopped(&mut interrupt) => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    let kept = arguments.keep && waited.as_ref().is_err_and(|e| e.kind != Kind::Interrupted);
    match waited.and_then(|guests| record.into_iter().try_for_each(Staged::commit).map(|()| guests)) {
        Ok(guests) => {
            let summary = converged.plan.summary();
            // All of it goes with the process in a moment; to take it apart first takes as long as a tenth of the whole.
            std::mem::forget((converged, wanted));
            Ok((summary, guests))
        }
        Err(e) if kept => Err(e),
        Err(e) => Err(run.take_back(converged, e).await),
    }
}

/// Subnets that hosts beyond the sandbox's router must know a way back to.
fn routed_subnets(topology: &Topology) -> Vec<ipnetwork::IpNetwork> {
    topology
        .networks
        .values()
        .filter(|network| network.wiring.egress == crate::mode::Egress::Routed)
        .flat_map(|network| {
            let tagged =
                network.vlans.values().filter(|vlan| !vlan.host.is_empty()).flat_map(|vlan| &vlan.subnets);
            network.subnets.iter().chain(tagged).copied()
        })
        .collect()
}

/// Listens to signals that ask `up` to end: the first sets `stop`, and `up` rolls back; the second is told so; the third
/// ends the process as it stands. Without a lab's name to give for what is then left, all but the first are ignored.
pub(super) async fn listen(mut signals: Signals, stop: watch::Sender<bool>, lab: Option<String>) {
    signals.next().await;
    ui::say("interrupted");
    let _ = stop.send(true);
    let Some(lab) = lab else { return stop.closed().await };
    signals.next().await;
    ui::say(&format!(
        "still rolling back; once more ends netloom at once, and `netloom down {lab}` removes what is then left"
    ));
    signals.next().await;
    std::process::exit(i32::from(Kind::Interrupted.exit_code()));
}

/// Signals that people and programs send to end a command.
pub(super) struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    /// From now on they end nothing by themselves.
    pub(super) fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context(|| "cannot listen to signals".into());
        let [interrupt, terminate, hang_up] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
        Ok(Self([interrupt?, terminate?, hang_up?]))
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

fn show(document: &Document, json: bool) -> Result<()> {
    if json {
        return ui::json(document);
    }
    let changes = match document.changes.len() {
        0 => "nothing to change".to_owned(),
        1 => "1 change".to_owned(),
        n => format!("{n} changes"),
    };
    ui::say(&format!("lab {} is up: {changes}, {} guests ready", document.lab, document.guests.len()));
    ui::print(&guest_table(&document.guests))
}

/// One row for each guest's interface.
pub(super) fn guest_table(guests: &[ready::ReadyGuest]) -> String {
    let mut rows = Vec::new();
    for guest in guests {
        for (index, interface) in guest.interfaces.iter().enumerate() {
            let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
            let first = index == 0;
            let kind = match guest.kind {
                GuestKind::Vm => "vm",
                GuestKind::Namespace => "namespace",
            };
            rows.push(vec![
                if first { guest.name.clone() } else { String::new() },
                if first { kind.to_owned() } else { String::new() },
                interface.name.clone(),
                interface.network.clone(),
                if addresses.is_empty() { "-".to_owned() } else { addresses.join(" ") },
            ]);
        }
    }
    report::table(&["GUEST", "KIND", "NIC", "NETWORK", "ADDRESSES"], &rows)
}
