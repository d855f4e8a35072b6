//! A lab's virtual machines: the connection to libvirt, and what a domain is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LabHost, blocking};
use crate::error::{Context, Error, Result};
use crate::guest::seed;
use crate::host::domains::Domains;
use crate::host::labdir;
use crate::host::libvirt::{self, Connection, DomainSpec, Kernel, NicSpec};
use crate::host::{files, run};
use crate::image;
use crate::plan;
use crate::resource::{Domain, Id, Resource, names};
use crate::topology::Image;

impl LabHost {
    /// Root of the embedded driver: short, since sockets below it have to fit into 108 bytes (`sun_path`).
    pub(super) fn embedded_root(&self) -> PathBuf {
        Path::new(run::DIRECTORY).join(names::link(&self.lab, "libvirt", "root"))
    }

    /// The connection to libvirt, made when first needed.
    ///
    /// # Errors
    /// Exit 3 when there is no usable libvirt or QEMU.
    pub async fn hypervisor(&self) -> Result<Arc<dyn Domains>> {
        Ok(self.connection().await?.0)
    }

    /// Where libvirt's process ended in the middle of something, what is left to do is asked of another one.
    async fn connection(&self) -> Result<(Arc<dyn Domains>, Connection)> {
        let mut held = self.hypervisor.lock().await;
        if let Some((client, connection)) = held.as_ref().filter(|(client, _)| client.is_alive()) {
            return Ok((Arc::clone(client), connection.clone()));
        }
        let root = self.embedded_root();
        let connection = libvirt::choose(self.connect.as_deref(), &root, self.sandboxed)?;
        let nested = self.sandboxed && alone_in_user_namespace();
        let client: Arc<dyn Domains> = Arc::new(libvirt::Client::spawn(&connection, nested).await?);
        *held = Some((Arc::clone(&client), connection.clone()));
        Ok((client, connection))
    }

    /// libvirt, where there can be domains of the lab: asking it starts a process, and makes the embedded driver's
    /// root, which merely looking must not.
    pub(super) async fn possible_hypervisor(&self) -> Result<Option<Arc<dyn Domains>>> {
        let daemon = !self.sandboxed && libvirt::system_daemon_listens();
        if self.connect.is_none() && !self.sandboxed && !daemon {
            self.refuse_stranded()?;
        }
        let possible = self.connect.is_some()
            || self.hypervisor.lock().await.is_some()
            || self.embedded_root().exists()
            || daemon;
        if !possible {
            return Ok(None);
        }
        match self.hypervisor().await {
            Ok(hypervisor) => Ok(Some(hypervisor)),
            Err(e) if self.connect.is_some() || self.embedded_root().exists() => Err(e),
            // A daemon that does not let us in cannot hold domains that we made; one that was not even asked can.
            Err(e) if !libvirt::has_worker() || !libvirt::stranded(&self.lab).is_empty() => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// A guest whose daemon has gone runs on: neither is it absent, nor may a second one be started.
    fn refuse_stranded(&self) -> Result<()> {
        let names = libvirt::stranded(&self.lab);
        if names.is_empty() {
            return Ok(());
        }
        let names = names.join(", ");
        Err(Error::host(format!(
            "libvirt's system daemon does not run, and domains of lab `{}` do: {names}",
            self.lab
        ))
        .hint("start the daemon (`sudo systemctl start libvirtd`), which takes them up again"))
    }

    pub(super) async fn create_domain(&self, id: &Id, domain: &Domain, resource: &Resource) -> Result<()> {
        let spec = self.prepare_domain(id, domain, resource).await?;
        let (hypervisor, connection) = self.connection().await?;
        hypervisor.create(&libvirt::domain_xml(&spec)?).await?;
        self.boots.runs(&domain.name, connection.emulator(&domain.name));
        Ok(())
    }

    /// Makes a domain's files, and describes it.
    pub(crate) async fn prepare_domain(
        &self,
        id: &Id,
        domain: &Domain,
        resource: &Resource,
    ) -> Result<DomainSpec> {
        let (_, connection) = self.connection().await?;
        let home = self.dir.guest(&domain.guest);
        labdir::make_directory(&home)?;
        let (kernel, disk, least_memory_mib) = self.boot(domain, &home).await?;
        let seed_path = home.join("seed.img");
        seed::write(&seed_path, &domain.config)?;
        let nics =
            domain.nics.iter().map(|(mac, tap, mtu)| NicSpec { mac: *mac, tap: tap.clone(), mtu: *mtu });
        let spec = DomainSpec {
            name: domain.name.clone(),
            lab: self.lab.clone(),
            guest: id.name.clone(),
            digest: plan::digest(resource).unwrap_or_default(),
            memory_mib: domain.memory_mib.max(least_memory_mib),
            cpus: domain.cpus,
            acceleration: libvirt::accelerator_for(&connection).acceleration,
            emulator: None,
            kernel,
            disk,
            seed: Some(seed_path),
            nics: nics.collect(),
            console_log: home.join("console.log"),
        };
        labdir::note_made(&home, domain)?;
        Ok(spec)
    }

    /// The kernel of the built-in image, or a disk of its own over the image's; and the memory in MiB it needs to start
    /// at all, since that depends on the distribution's kernel and the file cannot know it.
    async fn boot(&self, domain: &Domain, home: &Path) -> Result<(Option<Kernel>, Option<PathBuf>, u32)> {
        let state = self.state.clone();
        let say = Arc::clone(&self.say);
        let wanted = domain.image.clone();
        let directory = self.file_directory.clone();
        let target = home.join("disk.qcow2");
        let work = move || -> Result<(Option<Kernel>, Option<PathBuf>, u32)> {
            let cache = state.join("images");
            if wanted == Image::BuiltIn {
                let image = image::built_in(&cache, &mut |line| say(line))?;
                let kernel =
                    Kernel { kernel: image.kernel, initrd: Some(image.initrd), cmdline: image.cmdline };
                return Ok((Some(kernel), None, image.memory_mib));
            }
            let backing = image::resolve(&cache, &wanted, &directory)?;
            image::overlay(&backing, &target)?;
            Ok((None, Some(target), 0))
        };
        blocking(work).await
    }

    pub(super) async fn delete_domain(&self, domain: &Domain) -> Result<()> {
        self.hypervisor().await?.remove(&domain.name).await?;
        files::remove_directory(&self.dir.guest(&domain.guest))
            .context(|| format!("cannot remove the files of guest `{}`", domain.guest))
    }
}

/// Whether only one user id is mapped here: a sandbox of an ordinary user. libvirt as its uid 0 would try to change
/// owners and groups, which fails there; it is given a user namespace of its own inside.
fn alone_in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().count() == 1 && map.split_whitespace().nth(2) == Some("1")
}
