//! The host as `apply` sees it: five verbs on resources. The real one is [`super::lab::LabHost`]; [`Memory`] stands
//! in for it in tests and can be told to fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::host::run::Turn;
use crate::inventory::{Earlier, Found, Inventory};
use crate::plan;
use crate::resource::{Id, Node, Place, Resource};

/// What can be done to a host on behalf of one lab.
#[async_trait]
pub trait Actuator: Send + Sync {
    /// Looks at everything of the lab; `wanted` only says which kernel settings to read.
    async fn observe(&self, wanted: &[Node]) -> Result<Inventory> {
        self.observe_after(wanted, None).await
    }
    /// The same; after an earlier look only where something was changed since, where that spares work.
    async fn observe_after(&self, wanted: &[Node], earlier: Option<Earlier<'_>>) -> Result<Inventory>;
    /// Begins with what the next look at all of it needs in any case. What is wanted may be worked out meanwhile, and nothing
    /// else may be done.
    fn look_ahead(&self) {}
    /// Waits until this process alone may claim what only one lab can have: ports, subnets and uplinks of the host. It holds
    /// that while it looks what is free and until it has it. `None` where there are no others.
    async fn turn(&self) -> Result<Option<Turn>> {
        Ok(None)
    }
    /// Waits until a resource should be made: not more virtual machines are to boot at a time than the host can feed. Whoever
    /// does not wait to the end makes nothing.
    async fn admit(&self, _resource: &Resource) {}
    /// Makes a resource. After a failure part of it may exist; [`Actuator::delete`] then removes it.
    async fn create(&self, id: &Id, resource: &Resource) -> Result<()>;
    /// Changes a resource in place from `found` to `wanted`.
    async fn change(&self, id: &Id, wanted: &Resource, found: &Resource) -> Result<()>;
    /// Removes a resource; fine when it, or part of it, is gone already.
    async fn delete(&self, id: &Id, found: &Resource) -> Result<()>;
    /// Removes a link of the lab that carries no mark.
    async fn delete_stray(&self, place: &Place, link: &str) -> Result<()>;
    /// Removes all of the lab's links on the host at once, where that is faster than one after the other.
    async fn delete_links(&self) -> Result<()> {
        Ok(())
    }
}

/// A host that exists in memory only.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<MemoryState>,
}

#[derive(Debug, Default)]
struct MemoryState {
    resources: BTreeMap<Id, Resource>,
    actions: usize,
    fail_at: Option<usize>,
    room: Option<usize>,
}

impl Memory {
    /// Makes the `action`-th action (from 0) and no other fail.
    pub fn fail_at(&self, action: Option<usize>) {
        let mut state = self.lock();
        state.actions = 0;
        state.fail_at = action;
    }

    /// Lets so many more virtual machines start; whichever comes then waits for ever.
    pub fn room_for(&self, machines: usize) {
        self.lock().room = Some(machines);
    }

    /// What exists.
    #[must_use]
    pub fn resources(&self) -> BTreeMap<Id, Resource> {
        self.lock().resources.clone()
    }

    /// How many actions were done since the last [`Memory::fail_at`].
    #[must_use]
    pub fn actions(&self) -> usize {
        self.lock().actions
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port needs its bridge, and what lives in a namespace needs that: as on a real host.
    fn require(&self, id: &Id, resource: &Resource) -> Result<()> {
        let state = self.lock();
        let bridge = |name: &str| {
            state.resources.values().any(|r| matches!(r, Resource::Bridge(bridge) if bridge.link == name))
        };
        let place = |place: &Place| match place {
            Place::Host => true,
            Place::Netns(name) => {
                state.resources.values().any(|r| matches!(r, Resource::Namespace(found) if found == name))
            }
        };
        let there = match resource {
            Resource::Veth(veth) => veth
                .ends
                .iter()
                .all(|end| place(&end.place) && end.port.as_ref().is_none_or(|port| bridge(&port.bridge))),
            Resource::Tap(tap) => bridge(&tap.port.bridge),
            Resource::Uplink(uplink) => bridge(&uplink.bridge),
            Resource::Ruleset(ruleset) => place(&ruleset.place),
            Resource::Sysctls(settings) => place(&settings.place),
            Resource::Vlan(vlan) => {
                place(&vlan.place) && vlan.port.as_ref().is_none_or(|port| bridge(&port.bridge))
            }
            Resource::Macvlan(macvlan) => place(&macvlan.place),
            Resource::Vxlan(vxlan) => place(&vxlan.underlay) && bridge(&vxlan.port.bridge),
            Resource::Routes(routes) => place(&routes.place),
            Resource::Service(service) => place(&service.place),
            Resource::Namespace(_) | Resource::Bridge(_) | Resource::Domain(_) => true,
        };
        if there { Ok(()) } else { Err(Error::failed(format!("{id} lacks what it needs"))) }
    }

    fn act(&self, work: impl FnOnce(&mut BTreeMap<Id, Resource>)) -> Result<()> {
        let mut state = self.lock();
        let action = state.actions;
        state.actions += 1;
        if state.fail_at == Some(action) {
            return Err(Error::failed(format!("action {action} fails on demand")));
        }
        work(&mut state.resources);
        Ok(())
    }
}

#[async_trait]
impl Actuator for Memory {
    async fn observe_after(&self, _wanted: &[Node], _earlier: Option<Earlier<'_>>) -> Result<Inventory> {
        let mut inventory = Inventory::default();
        for (id, resource) in self.resources() {
            let digest = plan::digest(&resource);
            inventory.found.insert(id, Found { resource, defects: Vec::new(), digest });
        }
        Ok(inventory)
    }
    async fn admit(&self, resource: &Resource) {
        let is_full = matches!(resource, Resource::Domain(_)) && {
            let mut state = self.lock();
            let left = state.room;
            state.room = left.map(|left| left.saturating_sub(1));
            left == Some(0)
        };
        if is_full {
            std::future::pending().await
        }
    }
    async fn create(&self, id: &Id, resource: &Resource) -> Result<()> {
        self.require(id, resource)?;
        self.act(|all| {
            all.insert(id.clone(), resource.clone());
        })
    }
    async fn change(&self, id: &Id, wanted: &Resource, _found: &Resource) -> Result<()> {
        self.require(id, wanted)?;
        self.act(|all| {
            all.insert(id.clone(), wanted.clone());
        })
    }
    async fn delete(&self, id: &Id, _found: &Resource) -> Result<()> {
        self.act(|all| {
            all.remove(id);
        })
    }
    async fn delete_stray(&self, _place: &Place, _link: &str) -> Result<()> {
        self.act(|_| {})
    }
}
