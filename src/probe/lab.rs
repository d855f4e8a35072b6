//! The endpoints of a lab that is up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnetwork::IpNetwork;

use super::model::{Endpoints, Exec, Executed, Vantage};
use crate::apply::ready::{self, ReadyInterface, Seen};
use crate::error::{Error, Result};
use crate::host::agent;
use crate::host::domains::Domains;
use crate::host::lab::LabHost;
use crate::host::{links, netns};
use crate::inventory::Inventory;
use crate::resource::{Place, names};
use crate::sandbox::{self, world};
use crate::topology::{Addressing, Endpoint, GuestKind, Topology};

/// Looked at once; leases do not change while a lab is measured.
pub struct LabEndpoints<'a> {
    topology: &'a Topology,
    hypervisor: Option<Arc<dyn Domains>>,
    /// All addresses of the host, the lab's or not.
    host: Vec<IpAddr>,
    /// All addresses of the LAN neighbour; none where there is no sandbox.
    lan: Vec<IpAddr>,
    /// Interfaces by guest; an error says why the guest cannot be asked.
    guests: BTreeMap<String, Result<Seen, String>>,
}

impl<'a> LabEndpoints<'a> {
    /// Asks every guest for its addresses.
    ///
    /// # Errors
    /// Exit 3 when the lab has VMs and libvirt cannot be reached.
    pub async fn new(topology: &'a Topology, host: &LabHost) -> Result<Self> {
        let vms = topology.guests.values().any(|guest| guest.kind == GuestKind::Vm);
        let hypervisor = if vms { Some(host.hypervisor().await?) } else { None };
        let state = host.links().observe(&Place::Host).await?;
        let own = state.links.values().filter(|link| link.name != "lo").flat_map(Inventory::addresses);
        let own = own.map(|address| address.ip()).collect();
        let lan = if sandbox::inside() { world::lan_addresses().await? } else { Vec::new() };
        let asked = topology.guests.values().map(|guest| async move {
            let found = ready::look(topology, host, guest).await.map_err(|e| e.to_string());
            (guest.name.clone(), found)
        });
        let guests = futures_util::future::join_all(asked).await.into_iter().collect();
        Ok(Self { topology, hypervisor, host: own, lan, guests })
    }

    /// The interfaces of a guest as they were when all were asked.
    ///
    /// # Errors
    /// When it could not be asked.
    pub fn interfaces(&self, guest: &str) -> Result<&[ReadyInterface]> {
        Ok(&self.seen(guest)?.interfaces)
    }

    fn seen(&self, guest: &str) -> Result<&Seen> {
        match self.guests.get(guest) {
            Some(Ok(seen)) => Ok(seen),
            Some(Err(e)) => Err(Error::failed(format!("guest `{guest}` cannot be asked: {e}"))),
            None => Err(Error::failed(format!("there is no guest `{guest}`"))),
        }
    }

    /// All addresses of the host outside its loopback.
    #[must_use]
    pub fn host(&self) -> &[IpAddr] {
        &self.host
    }

    fn guest_addresses(&self, name: &str, via: Option<&str>) -> Result<Vec<IpAddr>> {
        let seen = self.seen(name)?;
        let on = |network: &str| via.is_none_or(|via| matches_via(network, via));
        let interfaces = seen.interfaces.iter().filter(|interface| on(&interface.network));
        let mut out: Vec<IpAddr> =
            interfaces.flat_map(|interface| interface.addresses.iter().map(IpNetwork::ip)).collect();
        if self.is_mute(name) {
            // The host sees only what is on its own networks. The file says the rest, and a probe is what proves it.
            let guest = self.topology.guests.get(name);
            let interfaces = guest.into_iter().flat_map(|guest| &guest.nics).flat_map(|nic| &nic.interfaces);
            for interface in interfaces.filter(|interface| on(&interface.reference)) {
                let Addressing::Static(addresses) = &interface.addressing else { continue };
                out.extend(addresses.iter().map(IpNetwork::ip));
            }
            out.sort();
            out.dedup();
        }
        Ok(out)
    }

    /// Whether a guest is a VM whose agent does not answer.
    fn is_mute(&self, name: &str) -> bool {
        matches!(self.guests.get(name), Some(Ok(Seen { agent: Some(false), .. })))
    }

    fn host_addresses(&self, via: Option<&str>) -> Vec<IpAddr> {
        let mut out = Vec::new();
        for network in self.topology.networks.values() {
            if via.is_none_or(|via| via == network.name) {
                out.extend(network.host.iter().map(IpNetwork::ip));
            }
            for (name, vlan) in &network.vlans {
                if via.is_none_or(|via| matches_via(&format!("{}.{name}", network.name), via)) {
                    out.extend(vlan.host.iter().map(IpNetwork::ip));
                }
            }
        }
        if via.is_none() {
            let rest: Vec<IpAddr> = self.host.iter().filter(|ip| !out.contains(ip)).copied().collect();
            out.extend(rest);
        }
        out
    }
}

/// `via: core` means every interface on that network, `via: core.lan` the one VLAN.
fn matches_via(reference: &str, via: &str) -> bool {
    reference == via || reference.strip_prefix(via).is_some_and(|rest| rest.starts_with('.'))
}

#[async_trait]
impl Endpoints for LabEndpoints<'_> {
    async fn vantage(&self, endpoint: &Endpoint) -> Result<Option<Vantage>> {
        Ok(match endpoint {
            Endpoint::Guest(name) => match self.topology.guests.get(name).map(|guest| guest.kind) {
                Some(GuestKind::Namespace) => {
                    Some(Vantage::Netns(Place::Netns(names::netns(&self.topology.lab, name))))
                }
                Some(GuestKind::Vm) if self.is_mute(name) => {
                    return Err(Error::failed(format!(
                        "no probe can be started from {name}: it has no guest agent that answers"
                    )));
                }
                Some(GuestKind::Vm) => {
                    let domain = names::domain(&self.topology.lab, name);
                    self.hypervisor.clone().map(|hypervisor| {
                        Vantage::Exec(Arc::new(InVm { hypervisor, domain }) as Arc<dyn Exec>)
                    })
                }
                None => None,
            },
            Endpoint::Host => Some(Vantage::Netns(Place::Host)),
            Endpoint::Lan if sandbox::inside() => {
                Some(Vantage::Netns(Place::Netns(world::LAN_NETNS.to_owned())))
            }
            Endpoint::Outside if sandbox::inside() => {
                Some(Vantage::Netns(Place::Netns(world::OUTSIDE_NETNS.to_owned())))
            }
            Endpoint::Lan | Endpoint::Outside | Endpoint::Address(_) => None,
        })
    }

    async fn forget_neighbours(&self, endpoints: &BTreeSet<Endpoint>) -> Result<()> {
        let guests = endpoints.iter().filter_map(|endpoint| match endpoint {
            Endpoint::Guest(name) => self.topology.guests.get(name),
            _ => None, // what the host knows is the host's
        });
        let namespaces = guests.filter(|guest| guest.kind == GuestKind::Namespace);
        let names: Vec<String> =
            namespaces.map(|guest| names::netns(&self.topology.lab, &guest.name)).collect();
        netns::each(&names, |_| links::forget_neighbours_here(), || ())
            .1?
            .into_iter()
            .try_for_each(|done| done?)
    }

    async fn addresses(&self, endpoint: &Endpoint, via: Option<&str>) -> Result<Vec<IpAddr>> {
        Ok(match endpoint {
            Endpoint::Guest(name) => self.guest_addresses(name, via)?,
            Endpoint::Host => self.host_addresses(via),
            Endpoint::Lan if sandbox::inside() => self.lan.clone(),
            Endpoint::Lan => return Err(Error::failed("only a sandbox has a LAN neighbour")),
            Endpoint::Outside if sandbox::inside() => world::OUTSIDE_ADDRESSES.to_vec(),
            Endpoint::Outside if self.topology.outside.is_empty() => {
                return Err(Error::failed(
                    "the file names no `outside` address, which a lab on the host itself needs",
                ));
            }
            Endpoint::Outside => self.topology.outside.clone(),
            Endpoint::Address(address) => vec![*address],
        })
    }
}

/// A VM, through its guest agent.
struct InVm {
    hypervisor: Arc<dyn Domains>,
    domain: String,
}

#[async_trait]
impl Exec for InVm {
    async fn exec(&self, argv: &[String], timeout: Duration) -> Result<Executed> {
        let output = agent::exec(self.hypervisor.as_ref(), &self.domain, argv, None, timeout).await?;
        Ok(Executed {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
