//! The kernel's neighbour table: who answered ARP or neighbour discovery at which address.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::Links;
use super::wire::Wire;
use crate::error::{Context, Error, Result};
use crate::resource::Place;
use crate::topology::Mac;

/// Somebody who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link it is behind.
    pub link: u32,
    /// Its address.
    pub address: IpAddr,
    /// The MAC address it gave.
    pub mac: Mac,
}

impl Links {
    /// Everybody in a place's neighbour table who gave a MAC address of their own accord: neither those still asked
    /// or given up, nor what somebody entered by hand.
    ///
    /// # Errors
    /// When the table cannot be listed.
    pub async fn neighbours(&self, place: &Place) -> Result<Vec<Neighbour>> {
        Ok(entries(&*self.at(place)?)?.iter().filter_map(read).collect())
    }

    /// Has the kernel ask for an address on a link, whatever routes and firewalls say about packets to it. Whoever is
    /// known there stays so, and is asked again when that was long ago.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn solicit(&self, place: &Place, link: u32, address: IpAddr) -> Result<()> {
        let wire = self.at(place)?;
        let mut entry = entry(link, address);
        // NTF_USE alone: make an entry where there is none, and use it as a packet would.
        entry.header.flags = NeighbourFlags::Use;
        wire.replace_neighbour(entry).context(|| format!("cannot ask who has {address}"))
    }

    /// Forgets who answered at an address, so that the next entry is a new answer. Fine when nobody did.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn forget_neighbour(&self, place: &Place, link: u32, address: IpAddr) -> Result<()> {
        let wire = self.at(place)?;
        match wire.delete_neighbour(entry(link, address)) {
            Err(e) if e.is(libc::ENOENT) => Ok(()),
            Err(e) => Err(Error::failed(format!("cannot forget who has {address}")).caused_by(e)),
            Ok(()) => Ok(()),
        }
    }

    /// Forgets the addresses that nobody has answered for: until the kernel gives up about one of them, what is sent there
    /// fails at the very moment when it does.
    ///
    /// # Errors
    /// When the table cannot be listed.
    pub async fn forget_unanswered(&self, place: &Place) -> Result<()> {
        forget(&*self.at(place)?, waits)
    }
}

/// Forgets everybody whom the network namespace that the calling thread is in has learned of; what was entered by hand stays.
///
/// # Errors
/// When the table cannot be listed.
pub fn forget_neighbours_here() -> Result<()> {
    let wire = Wire::open().context(|| "cannot open a netlink socket".into())?;
    forget(&wire, is_learned)
}

fn entries(wire: &Wire) -> Result<Vec<NeighbourMessage>> {
    wire.neighbours().context(|| "cannot list neighbours".into())
}

fn forget(wire: &Wire, which: fn(&NeighbourMessage) -> bool) -> Result<()> {
    for entry in entries(wire)?.into_iter().filter(which) {
        // It may have answered, or be gone, meanwhile.
        let _ = wire.delete_neighbour(entry);
    }
    Ok(())
}

fn is_learned(entry: &NeighbourMessage) -> bool {
    !matches!(entry.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
}

fn entry(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    entry.header.ifindex = link;
    entry.attributes.push(NeighbourAttribute::Destination(address.into()));
    entry
}

fn waits(entry: &NeighbourMessage) -> bool {
    matches!(entry.header.state, NeighbourState::Incomplete | NeighbourState::Failed)
}

fn read(entry: &NeighbourMessage) -> Option<Neighbour> {
    use NeighbourState::{Delay, Probe, Reachable, Stale};
    if !matches!(entry.header.state, Reachable | Stale | Delay | Probe) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { link: entry.header.ifindex, address: address?, mac: mac? })
}
