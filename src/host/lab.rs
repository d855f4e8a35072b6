//! The real host on behalf of one lab: every verb on resources, carried out by the adapter that is theirs.

mod machines;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::Mutex;

use crate::error::{Context, Error, Kind, Result};
use crate::host::actuator::Actuator;
use crate::host::boots::Boots;
use crate::host::domains::Domains;
use crate::host::labdir::{self, LabDir};
use crate::host::libvirt::Connection;
use crate::host::links::{Ahead, Links};
use crate::host::nft::notes::Notes;
use crate::host::run::{self, Turn};
use crate::host::workers::Workers;
use crate::host::{files, netns, nft, service, sysctl};
use crate::inventory::{self, Earlier, Inventory, Sources};
use crate::resource::{Id, Macvlan, Node, Place, Resource, Vlan};

/// How long to wait for others that claim something of the host: they do so for a fraction of a second, or, with hundreds
/// of networks, for a few.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often to look before a failure to do so counts.
const LOOKS: u64 = 6;

/// Says what is being done, to a person.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// The host as one lab sees it.
pub struct LabHost {
    lab: String,
    dir: LabDir,
    links: Arc<Links>,
    workers: Workers,
    notes: Arc<Notes>,
    boots: Boots,
    state: PathBuf,
    file_directory: PathBuf,
    connect: Option<String>,
    sandboxed: bool,
    hypervisor: Mutex<Option<(Arc<dyn Domains>, Connection)>>,
    say: Say,
}

impl LabHost {
    /// Opens nothing yet. `file_directory` is where relative paths of images start; `connect` is the `--connect` URI.
    #[must_use]
    pub fn new(state: &Path, lab: &str, file_directory: &Path, connect: Option<String>, say: Say) -> Self {
        Self {
            lab: lab.to_owned(),
            dir: LabDir::new(state, lab),
            links: Arc::new(Links::new(lab)),
            workers: Workers::default(),
            notes: Arc::default(),
            boots: Boots::new(),
            state: state.to_owned(),
            file_directory: file_directory.to_owned(),
            connect,
            sandboxed: crate::sandbox::inside(),
            hypervisor: Mutex::new(None),
            say,
        }
    }

    /// Netlink.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Takes over a look at the host that was begun before it was known for which lab; [`Actuator::look_ahead`] says whether it
    /// still holds.
    #[must_use]
    pub fn after(self, begun: Option<Ahead>) -> Self {
        self.links.take_over(begun);
        self
    }

    /// The lab's directory.
    #[must_use]
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    async fn stop_service(&self, id: &Id) -> Result<()> {
        let (lab, name) = (self.lab.clone(), id.name.clone());
        blocking(move || service::stop(&lab, &name)).await?;
        // A DHCP server that is made anew must know whom it gave addresses. All of it goes with the lab's directory.
        let home = self.dir.service(&id.name);
        let Ok(reached) = files::reach(&home) else { return Ok(()) };
        let _ = reached.clear("leases");
        let _ = fs::remove_dir(&home);
        Ok(())
    }

    /// Removes what is left in the file system when the lab has nothing else any more: its directory and the embedded
    /// driver's root.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub async fn remove_files(&self) -> Result<()> {
        self.notes.settle_all();
        // The worker has files open below the root until it is gone.
        if let Some((hypervisor, _)) = self.hypervisor.lock().await.take() {
            hypervisor.close().await?;
        }
        let root = self.embedded_root();
        match fs::remove_dir_all(&root) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::failed(format!("cannot remove {}", root.display())).caused_by(e));
            }
            _ => {}
        }
        run::tidy()?;
        self.dir.remove()
    }
}

fn start_service(dir: &LabDir, id: &Id, wanted: &crate::resource::Service) -> Result<()> {
    service::start(dir, &id.name, wanted)?;
    labdir::note_made(&dir.service(&id.name), wanted)
}

/// What the kernel makes, on request.
async fn create_in_kernel(lab: &str, links: &Links, id: &Id, resource: &Resource) -> Result<()> {
    match resource {
        Resource::Sysctls(settings) => sysctl::set(lab, settings),
        Resource::Namespace(name) => {
            netns::create(name)?;
            links.raise_loopback(&Place::Netns(name.clone())).await
        }
        Resource::Bridge(bridge) => links.create_bridge(id, bridge).await,
        Resource::Tap(tap) => links.create_tap(id, tap).await,
        Resource::Veth(veth) => links.create_veth(id, veth).await,
        Resource::Vlan(vlan) => links.create_vlan(id, vlan).await,
        Resource::Macvlan(macvlan) => links.create_macvlan(id, macvlan).await,
        Resource::Vxlan(vxlan) => links.create_vxlan(id, vxlan).await,
        Resource::Routes(routes) => links.change_routes(routes, &[]).await,
        Resource::Ruleset(_) | Resource::Uplink(_) | Resource::Service(_) | Resource::Domain(_) => {
            Err(Error::failed(format!("{id} is not made by the kernel alone")))
        }
    }
}

/// Runs what waits for programs beside everything else. On a thread of its own: the runtime's panic where the system
/// gives no more threads, and then nothing would be rolled back.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("worker".into())
        .spawn(move || drop(done.send(work())))
        .context(|| "cannot start a thread".into())?;
    result.await.unwrap_or_else(|_| Err(Error::failed("a worker failed")))
}

#[async_trait]
impl Actuator for LabHost {
    async fn observe_after(&self, wanted: &[Node], earlier: Option<Earlier<'_>>) -> Result<Inventory> {
        let hypervisor = self.possible_hypervisor().await?;
        let sources = Sources {
            lab: &self.lab,
            dir: &self.dir,
            links: &self.links,
            notes: &self.notes,
            domains: hypervisor.as_deref(),
        };
        let mut looks = 1;
        loop {
            match inventory::observe(&sources, wanted, earlier).await {
                // Another netloom may be at work on the lab: what was there a moment ago is gone when it is asked about.
                Err(e) if e.kind == Kind::Failed && looks < LOOKS => {
                    tracing::debug!("looking again: {e}");
                    tokio::time::sleep(Duration::from_millis(20 * looks)).await;
                    looks += 1;
                }
                other => return other,
            }
        }
    }

    fn look_ahead(&self) {
        self.links.look_ahead();
    }

    async fn turn(&self) -> Result<Option<Turn>> {
        let began = Instant::now();
        let mut said = false;
        self.notes.renew(); // who takes a turn has the lab to itself
        loop {
            // Here and now: on a thread of its own it would go on, and make what it needs, after an interruption.
            let holder = match run::take_turn()? {
                Ok(turn) => return Ok(Some(turn)),
                Err(holder) => holder,
            };
            let what = "the turn to claim ports, subnets and uplinks of this host";
            if began.elapsed() > PATIENCE {
                return Err(Error::failed(format!("{what} is held by another netloom, process {holder}"))
                    .hint("wait for it to end"));
            }
            if began.elapsed() > Duration::from_secs(2) && !std::mem::replace(&mut said, true) {
                (self.say)(&format!("waiting: {what} is held by another netloom, process {holder}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn admit(&self, resource: &Resource) {
        if let Resource::Domain(domain) = resource {
            let console = self.dir.guest(&domain.guest).join("console.log");
            self.boots.admit(&domain.name, domain.memory_mib, &console).await;
        }
    }

    async fn create(&self, id: &Id, resource: &Resource) -> Result<()> {
        match resource {
            Resource::Ruleset(ruleset) => {
                let (notes, dir, ruleset) = (Arc::clone(&self.notes), self.dir.clone(), ruleset.clone());
                blocking(move || notes.load(&dir, ruleset)).await
            }
            Resource::Uplink(uplink) => self.links.join_uplink(&id.name, uplink).await,
            Resource::Service(service) => {
                let (dir, id, service) = (self.dir.clone(), id.clone(), service.clone());
                blocking(move || start_service(&dir, &id, &service)).await
            }
            Resource::Domain(domain) => {
                let made = self.create_domain(id, domain, resource).await;
                made.inspect_err(|_| self.boots.gone(&domain.name))
            }
            _ => {
                let (lab, links) = (self.lab.clone(), Arc::clone(&self.links));
                let (id, resource) = (id.clone(), resource.clone());
                // The kernel answers at once: nothing in there waits.
                let work = move || create_in_kernel(&lab, &links, &id, &resource).now_or_never();
                let done = self.workers.run(work).await?;
                done.unwrap_or_else(|| Err(Error::failed("the kernel was not asked to the end")))
            }
        }
    }

    async fn change(&self, id: &Id, wanted: &Resource, found: &Resource) -> Result<()> {
        match (wanted, found) {
            (Resource::Ruleset(_) | Resource::Sysctls(_), _) => self.create(id, wanted).await,
            (Resource::Bridge(wanted), Resource::Bridge(found)) => {
                self.links.change_bridge(wanted, found).await
            }
            (Resource::Uplink(wanted), Resource::Uplink(found)) => {
                self.links.change_uplink(&id.name, wanted, found).await
            }
            (Resource::Tap(wanted), Resource::Tap(found)) => self.links.change_tap(wanted, found).await,
            (Resource::Veth(wanted), Resource::Veth(found)) => self.links.change_veth(wanted, found).await,
            (Resource::Vlan(wanted), Resource::Vlan(found)) => self.links.change_vlan(wanted, found).await,
            (Resource::Macvlan(wanted), Resource::Macvlan(found)) => {
                self.links.change_macvlan(wanted, found).await
            }
            (Resource::Vxlan(wanted), Resource::Vxlan(found)) => self.links.change_vxlan(wanted, found).await,
            (Resource::Routes(wanted), Resource::Routes(found)) => {
                self.links.change_routes(wanted, &found.routes).await
            }
            _ => Err(Error::failed(format!("{id} cannot be changed in place"))),
        }
    }

    async fn delete(&self, id: &Id, found: &Resource) -> Result<()> {
        match found {
            Resource::Ruleset(ruleset) => {
                self.notes.settle(ruleset);
                match nft::delete(&self.dir, ruleset) {
                    Err(_) if self.gone(&ruleset.place) => {
                        nft::forget(&self.dir, ruleset);
                        Ok(())
                    }
                    other => other,
                }
            }
            Resource::Sysctls(settings) if settings.place == Place::Host => sysctl::release(&self.lab),
            Resource::Sysctls(_) => Ok(()), // goes with its namespace
            Resource::Namespace(name) => netns::delete(name),
            Resource::Bridge(bridge) => {
                self.links.refuse_to_lose(&id.name, &bridge.link).await?;
                self.links.delete(&Place::Host, &bridge.link).await
            }
            Resource::Uplink(uplink) => self.links.leave_uplink(&id.name, &uplink.link, &uplink.bridge).await,
            Resource::Tap(tap) => self.links.delete(&Place::Host, &tap.link).await,
            Resource::Veth(veth) => self.delete_link(&veth.ends[0].place, &veth.ends[0].link).await,
            Resource::Vxlan(vxlan) => self.links.delete(&Place::Host, &vxlan.link).await,
            Resource::Vlan(Vlan { place, link, .. }) | Resource::Macvlan(Macvlan { place, link, .. }) => {
                self.delete_link(place, link).await
            }
            Resource::Routes(routes) if self.gone(&routes.place) => Ok(()),
            Resource::Routes(routes) => {
                let none = crate::resource::Routes { place: routes.place.clone(), routes: Vec::new() };
                let now = self.links.observe(&routes.place).await?.routes;
                self.links.change_routes(&none, &now).await
            }
            Resource::Service(_) => self.stop_service(id).await,
            Resource::Domain(domain) => self.delete_domain(domain).await,
        }
    }

    async fn delete_links(&self) -> Result<()> {
        self.links.delete_all(&Place::Host).await
    }

    async fn delete_stray(&self, place: &Place, link: &str) -> Result<()> {
        if *place == Place::Host {
            self.links.free_uplinks(link).await?;
        }
        self.delete_link(place, link).await
    }
}

impl LabHost {
    async fn delete_link(&self, place: &Place, link: &str) -> Result<()> {
        if self.gone(place) { Ok(()) } else { self.links.delete(place, link).await }
    }

    fn gone(&self, place: &Place) -> bool {
        matches!(place, Place::Netns(name) if netns::open(name).is_err())
    }
}
