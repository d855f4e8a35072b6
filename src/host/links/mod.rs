//! Links, addresses and routes through rtnetlink: one socket for each place, opened there and kept.

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
mod uplink;
mod vlan;
mod vxlan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkDelRequest};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

pub(crate) use create::route_localnet;
pub(crate) use device::free_index;
pub use neighbour::Neighbour;
pub use observe::{LinkKind, LinkState, PlaceState, RouteState};
pub use read::PORT_STATE;
pub use uplink::{lab_of_altname, read_altname};
pub use vxlan::VXLAN_PORT;

use crate::error::{Context, Error, Result};
use crate::host::netns;
use crate::resource::{Place, mark, names};

/// Routes that netloom adds carry this protocol number (`rtm_protocol`; below 256, unassigned in iproute2's
/// `rt_protos`), so that they are told from the kernel's, a routing daemon's and a user's.
pub const ROUTE_PROTOCOL: u8 = 110;

/// How long those who asked something of a socket that is lost are kept waiting, so that they hear of the loss first.
const LOSS_IS_HEARD: Duration = Duration::from_secs(2);

/// One rtnetlink socket.
#[derive(Clone)]
struct Socket {
    handle: Handle,
    /// The kernel lists one thing at a time for a socket; it refuses a second list with EBUSY while the first one's
    /// answers are still on their way (`__netlink_dump_start`).
    listing: Arc<Mutex<()>>,
    /// Whether it has failed, which is for good.
    dead: Arc<AtomicBool>,
    /// Whether we let go of it ourselves.
    forgotten: Arc<AtomicBool>,
}

/// rtnetlink sockets by place.
#[derive(Default)]
pub struct Links {
    sockets: Mutex<BTreeMap<Place, Socket>>,
    /// How many sockets have failed.
    lost: watch::Sender<usize>,
    lab: String,
}

impl Links {
    /// Sockets are opened when first needed. `lab` decides the group and the alias of every link made.
    #[must_use]
    pub fn new(lab: &str) -> Self {
        Self { sockets: Mutex::default(), lost: watch::Sender::default(), lab: lab.to_owned() }
    }

    /// Does something through these sockets, and gives it up as failed at the moment that one of them is lost: rtnetlink
    /// takes the end of the answers for success, whatever ended them.
    ///
    /// # Errors
    /// Those of the work, and a lost socket.
    pub async fn whole<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut lost = self.lost.subscribe();
        tokio::select! {
            biased;
            Ok(()) = lost.changed() => Err(Error::failed("a netlink socket failed, and with it what was asked of the kernel")),
            done = work => done,
        }
    }

    async fn at(&self, place: &Place) -> Result<Handle> {
        Ok(self.socket(place).await?.handle)
    }

    /// For a list, which must be read to its end before the guard goes.
    async fn listing(&self, place: &Place) -> Result<(Handle, OwnedMutexGuard<()>)> {
        let Socket { handle, listing, .. } = self.socket(place).await?;
        Ok((handle, listing.lock_owned().await))
    }

    async fn socket(&self, place: &Place) -> Result<Socket> {
        let mut sockets = self.sockets.lock().await;
        if let Some(socket) = sockets.get(place)
            && !socket.dead.load(Ordering::SeqCst)
        {
            return Ok(socket.clone());
        }
        let runtime = tokio::runtime::Handle::current();
        let opened = netns::within(place, move || {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })?;
        let (mut connection, handle, _) = opened.context(|| "cannot open a netlink socket".into())?;
        let socket =
            Socket { handle, listing: Arc::default(), dead: Arc::default(), forgotten: Arc::default() };
        let (Socket { dead, forgotten, .. }, lost) = (socket.clone(), self.lost.clone());
        tokio::spawn(async move {
            (&mut connection).await;
            dead.store(true, Ordering::SeqCst);
            if !forgotten.load(Ordering::SeqCst) {
                lost.send_modify(|count| *count += 1);
                // With the connection go the channels at which those who asked are waiting.
                tokio::time::sleep(LOSS_IS_HEARD).await;
            }
        });
        sockets.insert(place.clone(), socket.clone());
        Ok(socket)
    }

    /// Forgets the socket of a place that is about to go, since it would keep the namespace alive.
    pub async fn forget(&self, place: &Place) {
        if let Some(socket) = self.sockets.lock().await.remove(place) {
            socket.forgotten.store(true, Ordering::SeqCst);
        }
    }

    async fn index(&self, place: &Place, link: &str) -> Result<Option<u32>> {
        Ok(self.look_up(place, link).await?.map(|found| found.header.index))
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
        self.whole(self.find(place, link)).await
    }

    async fn find(&self, place: &Place, link: &str) -> Result<Option<LinkMessage>> {
        let handle = self.at(place).await?;
        let mut found = handle.link().get().match_name(link.to_owned()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(None),
            Err(e) => Err(Error::failed(format!("cannot look up link `{link}`")).caused_by(e)),
        }
    }

    async fn require(&self, place: &Place, link: &str) -> Result<u32> {
        self.index(place, link).await?.ok_or_else(|| Error::failed(format!("link `{link}` does not exist")))
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
        match self.at(place).await?.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => {}
            other => other.context(|| format!("cannot remove link `{link}`"))?,
        }
        device::remove(index);
        Ok(())
    }

    /// Removes every link of the lab in a place with one request: the kernel then waits once for all of them, rather
    /// than some hundredths of a second for each. Fine when there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_all(&self, place: &Place) -> Result<()> {
        let group = names::group(&self.lab);
        let links = self.observe(place).await?.links;
        let (ours, others): (Vec<_>, Vec<_>) = links
            .values()
            .filter(|link| link.group == group)
            .partition(|link| link.belongs_to(&self.lab, place));
        if !others.is_empty() {
            // A group is a number that anybody may use.
            for link in ours {
                self.delete(place, &link.name).await?;
            }
            return Ok(());
        }
        let mut devices = device::indices();
        devices.retain(|index| links.get(index).is_some_and(|link| link.group == group));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        let request = LinkDelRequest::new_with_message(self.at(place).await?, message);
        match request.execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => {}
            other => other.context(|| format!("cannot remove the links of group {group}"))?,
        }
        devices.into_iter().for_each(device::remove);
        Ok(())
    }
}
