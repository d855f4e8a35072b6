//! What is asked: a method for each kind of request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Prop};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::AddressMessageBuilder;

use super::{Done, Listed, Refusal, Wire};

impl Wire {
    /// Makes a link.
    pub(crate) fn add_link(&self, message: LinkMessage) -> Done {
        self.add(RouteNetlinkMessage::NewLink(message))
    }

    /// Sets what all links have.
    pub(crate) fn set_link(&self, message: LinkMessage) -> Done {
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Sets what links of its kind have, or ports: that goes through RTM_NEWLINK of a link that is there.
    pub(crate) fn change_link(&self, message: LinkMessage) -> Done {
        self.change(RouteNetlinkMessage::NewLink(message))
    }

    /// Removes links, or VLANs of a port.
    pub(crate) fn delete_link(&self, message: LinkMessage) -> Done {
        self.change(RouteNetlinkMessage::DelLink(message))
    }

    /// The link of a name.
    pub(crate) fn link(&self, name: &str) -> Result<Option<LinkMessage>, Refusal> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut found = None;
        let asked = self.ask(RouteNetlinkMessage::GetLink(request), 0, &mut |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found = Some(link);
            }
        });
        match asked {
            Err(e) if e.is(libc::ENODEV) => Ok(None),
            other => other.map(|_| found),
        }
    }

    /// The index of the link of a name. No list of all that the kernel knows of it, and no waiting for the lock of all links.
    pub(crate) fn index_of(&self, link: &str) -> Result<u32, Refusal> {
        rustix::net::netdevice::name_to_index(&self.socket, link)
            .map_err(|e| Refusal::Kernel(e.raw_os_error()))
    }

    /// What is read of all links; `request` chooses a family, and what is told of each. A message takes ten times the
    /// memory of what is read of it, so that one after the other is read.
    pub(crate) fn links<T>(&self, request: LinkMessage, read: impl Fn(LinkMessage) -> T) -> Listed<T> {
        self.list(&RouteNetlinkMessage::GetLink(request), |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(read(link)),
            _ => None,
        })
    }

    /// Gives a link another name beside its own.
    pub(crate) fn add_altname(&self, index: u32, name: &str) -> Done {
        let message = RouteNetlinkMessage::NewLinkProp(altname(index, name));
        self.order(message, NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND)
    }

    /// Takes such a name away.
    pub(crate) fn delete_altname(&self, index: u32, name: &str) -> Done {
        self.change(RouteNetlinkMessage::DelLinkProp(altname(index, name)))
    }

    /// Gives a link an address.
    pub(crate) fn add_address(&self, message: AddressMessage) -> Done {
        self.add(RouteNetlinkMessage::NewAddress(message))
    }

    /// Gives a link an address, or its address other properties.
    pub(crate) fn replace_address(&self, message: AddressMessage) -> Done {
        self.replace(RouteNetlinkMessage::NewAddress(message))
    }

    /// Takes an address away.
    pub(crate) fn delete_address(&self, message: AddressMessage) -> Done {
        self.change(RouteNetlinkMessage::DelAddress(message))
    }

    /// Adds a route.
    pub(crate) fn add_route(&self, message: RouteMessage) -> Done {
        self.add(RouteNetlinkMessage::NewRoute(message))
    }

    /// Adds a route, or puts it in the place of the one to the same destination.
    pub(crate) fn replace_route(&self, message: RouteMessage) -> Done {
        self.replace(RouteNetlinkMessage::NewRoute(message))
    }

    /// Removes a route.
    pub(crate) fn delete_route(&self, message: RouteMessage) -> Done {
        self.change(RouteNetlinkMessage::DelRoute(message))
    }

    /// Makes an entry of the neighbour table, or changes it.
    pub(crate) fn replace_neighbour(&self, message: NeighbourMessage) -> Done {
        self.replace(RouteNetlinkMessage::NewNeighbour(message))
    }

    /// Removes an entry of the neighbour table.
    pub(crate) fn delete_neighbour(&self, message: NeighbourMessage) -> Done {
        self.change(RouteNetlinkMessage::DelNeighbour(message))
    }

    /// All addresses.
    pub(crate) fn addresses(&self) -> Listed<AddressMessage> {
        self.addresses_of(0)
    }

    /// The addresses of one link; kernels before 4.20 list those of all.
    pub(crate) fn addresses_of(&self, index: u32) -> Listed<AddressMessage> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        self.list(&RouteNetlinkMessage::GetAddress(request), |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
    }

    /// Routes of a family, or of both (`AddressFamily::Unspec`).
    pub(crate) fn routes(&self, family: AddressFamily) -> Listed<RouteMessage> {
        self.routes_by(family, RouteProtocol::Unspec)
    }

    /// The same, of those that have this protocol number; kernels before 4.20 list all of them.
    pub(crate) fn routes_by(&self, family: AddressFamily, protocol: RouteProtocol) -> Listed<RouteMessage> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.header.protocol = protocol;
        self.list(&RouteNetlinkMessage::GetRoute(request), |message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
    }

    /// The neighbour table.
    pub(crate) fn neighbours(&self) -> Listed<NeighbourMessage> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.list(&request, |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
            _ => None,
        })
    }

    /// The number by which this namespace knows another one, if it does.
    pub(crate) fn number_of(&self, namespace: BorrowedFd<'_>) -> Result<Option<i32>, Refusal> {
        let mut request = NsidMessage::default();
        let fd = u32::try_from(namespace.as_raw_fd()).unwrap_or_default();
        request.attributes.push(NsidAttribute::Fd(fd));
        let mut number = None;
        self.ask(RouteNetlinkMessage::GetNsId(request), NLM_F_ACK, &mut |message| {
            if let RouteNetlinkMessage::NewNsId(found) = message {
                number = found.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                });
            }
        })?;
        Ok(number)
    }
}

fn altname(index: u32, name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]));
    message
}

/// An address on a link.
pub(crate) fn address(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    match ip {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(ip, prefix).build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(ip, prefix).build(),
    }
}
