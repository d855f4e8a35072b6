//! What a network namespace knows of its neighbours, and its default routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::error::{Context, Result};
use crate::host::netns;
use crate::resource::Place;

/// The discard port (RFC 863): what is sent there needs no answer.
const DISCARD: u16 = 9;

/// A namespace's netlink socket.
pub struct Neighbours {
    place: Place,
    handle: Handle,
}

impl Neighbours {
    /// Opens it.
    ///
    /// # Errors
    /// When the namespace does not exist.
    pub fn of(place: &Place) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = netns::within(place, move || {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })?
        .context(|| "cannot open a netlink socket".into())?;
        tokio::spawn(connection);
        Ok(Self { place: place.clone(), handle })
    }

    /// Whether somebody on a link says that this address is theirs, asked by a datagram to it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn resolves(&self, address: IpAddr, patience: Duration) -> Result<bool> {
        let began = Instant::now();
        let mut asked = None::<Instant>;
        loop {
            if self.known().await?.contains(&address) {
                return Ok(true);
            }
            if began.elapsed() >= patience {
                return Ok(false);
            }
            if asked.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
                asked = Some(Instant::now());
                netns::within(&self.place, move || {
                    let any: IpAddr = match address {
                        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                    };
                    // Without a route there is nothing to be sent, and nobody to be found.
                    let socket = UdpSocket::bind(SocketAddr::new(any, 0));
                    let _ = socket.and_then(|s| s.send_to(&[], SocketAddr::new(address, DISCARD)));
                })?;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Every address that somebody has answered for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn known(&self) -> Result<Vec<IpAddr>> {
        let mut stream = Box::pin(self.handle.neighbours().get().execute());
        let mut found = Vec::new();
        while let Some(entry) = stream.try_next().await.context(|| "cannot list the neighbours".into())? {
            let answered = matches!(
                entry.header.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
            );
            if !answered {
                continue;
            }
            found.extend(entry.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Forgets the addresses that nobody has answered for: until the kernel gives up about one of them, what is sent there
    /// fails at the very moment when it does.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn forget_unanswered(&self) -> Result<()> {
        let mut stream = Box::pin(self.handle.neighbours().get().execute());
        let mut unanswered = Vec::new();
        while let Some(entry) = stream.try_next().await.context(|| "cannot list the neighbours".into())? {
            if matches!(entry.header.state, NeighbourState::Incomplete | NeighbourState::Failed) {
                unanswered.push(entry);
            }
        }
        for entry in unanswered {
            // It may have answered, or been forgotten, meanwhile.
            let _ = self.handle.neighbours().del(entry).execute().await;
        }
        Ok(())
    }

    /// Whether there is a default route of this family.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn has_default_route(&self, v4: bool) -> Result<bool> {
        let message = if v4 {
            RouteMessageBuilder::<Ipv4Addr>::new().build()
        } else {
            RouteMessageBuilder::<Ipv6Addr>::new().build()
        };
        let mut stream = Box::pin(self.handle.route().get(message).execute());
        while let Some(route) = stream.try_next().await.context(|| "cannot list the routes".into())? {
            let unicast = route.header.kind == netlink_packet_route::route::RouteType::Unicast;
            if route.header.destination_prefix_length == 0 && unicast {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds a default route, of IPv4 or of IPv6, by this link: through `via`, or to everybody as if they were on the link.
    ///
    /// # Errors
    /// When the link does not exist or the kernel refuses.
    pub async fn add_default_route(&self, link: &str, v4: bool, via: Option<IpAddr>) -> Result<()> {
        let failed = || format!("cannot add a default route by `{link}`");
        let mut found = self.handle.link().get().match_name(link.to_owned()).execute();
        let Some(index) = found.try_next().await.context(failed)?.map(|message| message.header.index) else {
            return Err(crate::error::Error::failed(failed()).caused_by("there is no such link"));
        };
        let route = match (v4, via) {
            (true, Some(IpAddr::V4(via))) => {
                RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).gateway(via).build()
            }
            (true, _) => RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).build(),
            (false, Some(IpAddr::V6(via))) => {
                RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(via).build()
            }
            (false, _) => RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).build(),
        };
        self.handle.route().add(route).execute().await.context(failed)
    }
}
