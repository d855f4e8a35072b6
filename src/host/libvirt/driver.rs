//! What the worker does with an open connection.

use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error as VirtError, ErrorNumber};
use virt::sys;

use super::answer::{is_gone, wrap};
use super::choose::Connection;
use super::embed::Root;
use super::lost;
use super::process::Process;
use super::protocol::{Call, Outcome};
use super::xml;
use crate::error::{Error, Result};
use crate::host::domains::{HypervisorInfo, ObservedDomain};

/// How long an emulator may take to go after libvirt said that it is gone.
const EMULATOR_GOES: Duration = Duration::from_secs(5);

/// An open connection.
pub(super) struct Driver {
    connect: Connect,
    connection: Connection,
    root: Option<Root>,
}

impl Driver {
    /// Opens the connection; libvirt's event loop runs already. `root` is what an embedded connection holds.
    pub(super) fn open(connection: &Connection, root: Option<Root>) -> Result<Self> {
        let uri = connection.uri();
        let connect = Connect::open(Some(&uri)).map_err(|e| {
            if let Some(root) = &root {
                root.leave();
            }
            wrap(format!("cannot open libvirt at {uri}"), &e)
        })?;
        let driver = Self { connect, connection: connection.clone(), root };
        driver.settle();
        driver.end_lost()?;
        Ok(driver)
    }

    /// The embedded driver's directory, where it is one.
    pub(super) fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Waits until the embedded driver has found its running domains again: it does that on threads of its own, each
    /// holding its domain's job, and asking for figures waits for that job.
    fn settle(&self) {
        if self.root.is_none() {
            return;
        }
        let Ok(domains) = self.connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE) else { return };
        std::thread::scope(|scope| {
            for domain in &domains {
                scope.spawn(move || domain.memory_stats(0));
            }
        });
    }

    /// Ends the emulators of the embedded driver that libvirt has not found again: nothing else ever would.
    fn end_lost(&self) -> Result<()> {
        let Connection::Embedded(root) = &self.connection else { return Ok(()) };
        let failed = |e: VirtError| wrap("cannot list libvirt's running domains", &e);
        let running = self.connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE).map_err(failed)?;
        let known: Vec<u32> =
            running.iter().filter_map(|domain| self.pid(&domain.get_name().ok()?)).collect();
        let lost = lost::find(root, &known);
        lost.iter().for_each(Process::kill);
        lost.iter().try_for_each(|process| wait_for(process, "an emulator that libvirt has lost"))
    }

    /// Does what a request asks for.
    pub(super) fn perform(&self, call: Call) -> Result<Outcome> {
        match call {
            Call::Info => self.info().map(Outcome::Info),
            Call::List => self.list().map(Outcome::Domains),
            Call::Create { xml } => self.create(&xml).map(|()| Outcome::Done),
            Call::Start { name } => self.start(&name).map(|()| Outcome::Done),
            Call::Remove { name } => self.remove(&name).map(|()| Outcome::Done),
            Call::Agent { name, command, timeout_ms } => {
                self.agent(&name, &command, timeout_ms).map(Outcome::Text)
            }
            Call::Leave => Ok(Outcome::Done), // the session's own business
        }
    }

    fn info(&self) -> Result<HypervisorInfo> {
        let failed = |e: VirtError| wrap("cannot ask libvirt what it can run", &e);
        let version = self.connect.get_lib_version().map_err(failed)?;
        // As a side effect libvirt probes QEMU, the slowest part of a first start.
        let emulator = match self.connect.get_type().map_err(failed)?.as_str() {
            "QEMU" => {
                let capabilities = self
                    .connect
                    .get_domain_capabilities(None, Some(std::env::consts::ARCH), None, Some("qemu"), 0)
                    .map_err(failed)?;
                if let Some(root) = &self.root {
                    root.share_capabilities();
                }
                xml::read_emulator(&capabilities).unwrap_or_default()
            }
            other => {
                let uri = self.connection.uri();
                return Err(Error::host(format!("{uri} runs {other} guests, and netloom's need QEMU"))
                    .hint("--connect qemu:///system"));
            }
        };
        let mut domains = self
            .all()?
            .iter()
            .map(|domain| domain.get_name().map_err(failed))
            .collect::<Result<Vec<String>>>()?;
        domains.sort();
        Ok(HypervisorInfo {
            uri: self.connect.get_uri().map_err(failed)?,
            // 1,000,000 for each major version, 1,000 for each minor one (virConnectGetLibVersion).
            libvirt_version: format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000),
            emulator,
            domains,
        })
    }

    fn all(&self) -> Result<Vec<Domain>> {
        self.connect.list_all_domains(0).map_err(|e| wrap("cannot list libvirt's domains", &e))
    }

    fn list(&self) -> Result<Vec<ObservedDomain>> {
        let mut found = Vec::new();
        for domain in self.all()? {
            match self.observe(&domain) {
                Ok(Some(observed)) => found.push(observed),
                Ok(None) => {}
                Err(e) if is_gone(&e) => {} // removed by someone else meanwhile
                Err(e) => return Err(wrap("cannot look at a libvirt domain", &e)),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn observe(&self, domain: &Domain) -> Result<Option<ObservedDomain>, VirtError> {
        let Some(mark) = mark(domain)? else { return Ok(None) };
        let name = domain.get_name()?;
        let running = domain.is_active()?;
        let console = if running { xml::read_console(&domain.get_xml_desc(0)?) } else { None };
        let pid = if running { self.pid(&name) } else { None };
        let xml::Mark { lab, guest, digest } = mark;
        Ok(Some(ObservedDomain { name, lab, guest, digest, running, console, pid }))
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.connection.emulator(name)
    }

    fn look_up(&self, name: &str) -> Result<Domain, VirtError> {
        Domain::lookup_by_name(&self.connect, name)
    }

    fn create(&self, text: &str) -> Result<()> {
        no_nul(text)?;
        let name = xml::read_name(text).ok_or_else(|| Error::failed("the domain has no name"))?;
        if self.look_up(&name).is_ok() {
            return Err(Error::failed(format!("cannot create domain `{name}`: there is one of that name"))
                .hint(format!(
                    "rename the lab or the guest, or remove it: virsh -c {} undefine {name}",
                    self.connection.uri()
                )));
        }
        let domain = Domain::define_xml(&self.connect, text)
            .map_err(|e| wrap(format!("cannot define domain `{name}`"), &e))?;
        match domain.create() {
            Ok(_) => Ok(()),
            Err(e) => {
                let error = wrap(format!("cannot start domain `{name}`"), &e);
                match undefine(&domain) {
                    Ok(()) => Err(error),
                    Err(left) => Err(error.caused_by(format!("it stays defined: {}", left.message()))),
                }
            }
        }
    }

    fn start(&self, name: &str) -> Result<()> {
        no_nul(name)?;
        let failed = |e: VirtError| wrap(format!("cannot start domain `{name}`"), &e);
        let domain = self.look_up(name).map_err(failed)?;
        if domain.is_active().map_err(failed)? {
            return Ok(());
        }
        domain.create().map(|_| ()).map_err(failed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        no_nul(name)?;
        let failed = |e: VirtError| wrap(format!("cannot remove domain `{name}`"), &e);
        let domain = match self.look_up(name) {
            Ok(domain) => domain,
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        match mark(&domain) {
            Ok(Some(_)) => {}
            Ok(None) => {
                return Err(Error::failed(format!("domain `{name}` is not netloom's, so it stays")));
            }
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => return Err(failed(e)),
        }
        let emulator = self.pid(name).and_then(Process::of);
        destroy(&domain).map_err(failed)?;
        undefine(&domain).map_err(failed)?;
        match emulator {
            Some(process) => wait_for(&process, &format!("the emulator of domain `{name}`")),
            None => Ok(()),
        }
    }

    fn agent(&self, name: &str, command: &str, timeout_ms: u64) -> Result<String> {
        no_nul(name)?;
        no_nul(command)?;
        let failed = |e: VirtError| wrap(format!("the guest agent of domain `{name}` does not answer"), &e);
        let seconds = i32::try_from(timeout_ms.div_ceil(1000).max(1)).unwrap_or(i32::MAX);
        self.look_up(name).map_err(failed)?.qemu_agent_command(command, seconds, 0).map_err(failed)
    }
}

/// The bindings cannot carry a NUL to C.
fn no_nul(text: &str) -> Result<()> {
    if text.contains('\0') { Err(Error::failed("a text for libvirt holds a NUL byte")) } else { Ok(()) }
}

fn mark(domain: &Domain) -> Result<Option<xml::Mark>, VirtError> {
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or_default();
    match domain.get_metadata(kind, Some(xml::NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Ok(text) => Ok(xml::read_mark(&text)),
        Err(e) if e.code() == ErrorNumber::NoDomainMetadata => Ok(None),
        // Drivers without metadata have no domains of ours.
        Err(e) if e.code() == ErrorNumber::NoSupport => Ok(None),
        Err(e) => Err(e),
    }
}

/// Stops a domain at once. libvirt gives up on an emulator that does not go within some seconds, as happens where
/// process 1 is slow to reap; then it is asked again.
fn destroy(domain: &Domain) -> Result<(), VirtError> {
    let mut tries = 0;
    loop {
        match domain.destroy() {
            Ok(()) => return Ok(()),
            Err(e) if e.code() == ErrorNumber::OperationInvalid || is_gone(&e) => return Ok(()), // not running
            Err(e) if tries == 3 => return Err(e),
            Err(_) => tries += 1,
        }
    }
}

/// Removes the definition with everything libvirt may keep for it.
fn undefine(domain: &Domain) -> Result<(), VirtError> {
    let everything = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    match domain.undefine_flags(everything) {
        Ok(()) => Ok(()),
        Err(e) if is_gone(&e) => Ok(()), // a transient domain goes when it stops
        Err(e) if matches!(e.code(), ErrorNumber::InvalidArg | ErrorNumber::NoSupport) => domain.undefine(),
        Err(e) => Err(e),
    }
}

fn wait_for(emulator: &Process, what: &str) -> Result<()> {
    let began = Instant::now();
    while !emulator.is_gone() {
        if began.elapsed() > EMULATOR_GOES {
            let message = format!("{what} does not end, process {}", emulator.pid);
            return Err(Error::failed(message));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
