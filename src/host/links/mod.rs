//! Links, addresses and routes through rtnetlink: one socket for each place, opened there and kept.

mod ahead;
mod bridge_vlan;
mod change;
mod create;
mod default_route;
mod device;
mod lease;
mod macvlan;
mod mend;
mod neighbour;
mod observe;
mod read;
mod remove;
mod uplink;
mod vlan;
mod vxlan;
pub(crate) mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use wire::Wire;

pub use ahead::Ahead;
pub(crate) use create::index_of;
pub(crate) use device::free_index;
pub use neighbour::{Neighbour, forget_neighbours_here};
pub use observe::{LinkKind, LinkState, PlaceState, RouteState, look_here};
pub use read::PORT_STATE;
pub use uplink::{lab_of_altname, read_altname};
pub use vxlan::VXLAN_PORT;

use crate::error::{Context, Result};
use crate::host::netns;
use crate::resource::{Place, mark, names};

/// Routes that netloom adds carry this protocol number (`rtm_protocol`; below 256, unassigned in iproute2's
/// `rt_protos`), so that they are told from the kernel's, a routing daemon's and a user's.
pub const ROUTE_PROTOCOL: u8 = 110;

/// Links by place.
#[derive(Default)]
pub struct Links {
    /// The host's sockets, kept: one for each thread that asks at a time. A namespace's is opened when something is to be
    /// done there: kept, it would keep the namespace alive, and there may be more of them than a process may have files open.
    host: Mutex<Vec<Arc<Wire>>>,
    lab: String,
    ahead: Mutex<Option<Ahead>>,
}

impl Links {
    /// Sockets are opened when first needed. `lab` decides the group and the alias of every link made.
    #[must_use]
    pub fn new(lab: &str) -> Self {
        Self { host: Mutex::default(), lab: lab.to_owned(), ahead: Mutex::default() }
    }

    /// A socket there.
    fn at(&self, place: &Place) -> Result<Arc<Wire>> {
        let open = || netns::within(place, Wire::open)?.context(|| "cannot open a netlink socket".into());
        if *place != Place::Host {
            return Ok(Arc::new(open()?));
        }
        let mut kept = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|wire| wire.is_sound());
        if let Some(idle) = kept.iter().find(|wire| Arc::strong_count(wire) == 1) {
            return Ok(Arc::clone(idle));
        }
        let wire = Arc::new(open()?);
        kept.push(Arc::clone(&wire));
        Ok(wire)
    }

    /// Whether a link is the lab's: by its group, which it is born with, or by its mark.
    fn owns(&self, link: &LinkMessage) -> bool {
        link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::Group(group) => *group == names::group(&self.lab),
            LinkAttribute::IfAlias(alias) => mark::read(alias).is_some_and(|(lab, _)| lab == self.lab),
            _ => false,
        })
    }

    async fn look_up(&self, place: &Place, link: &str) -> Result<Option<LinkMessage>> {
        self.at(place)?.link(link).context(|| format!("cannot look up link `{link}`"))
    }

    async fn require(&self, place: &Place, link: &str) -> Result<u32> {
        create::index_of(&*self.at(place)?, link)
    }

    /// Removes a link. Fine when it is gone, or when the one of that name is not the lab's: somebody else took the name
    /// after the lab's own link had gone, or before it could be made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete(&self, place: &Place, link: &str) -> Result<()> {
        let Some(message) = self.look_up(place, link).await?.filter(|found| self.owns(found)) else {
            return Ok(());
        };
        let index = message.header.index;
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.at(place)?.delete_link(message) {
            Err(e) if e.is(libc::ENODEV) => {}
            other => other.context(|| format!("cannot remove link `{link}`"))?,
        }
        device::remove(index);
        Ok(())
    }
}
