//! One rtnetlink socket, asked and answered on the caller's own thread. The kernel handles a request within the call that
//! sends it and has the answer ready when that returns, so waiting costs nothing, and a request costs two system calls:
//! no task, no queue, no buffer of its own for each of a thousand namespaces.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Prop};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::AddressMessageBuilder;

/// The kernel fills at most 32 KiB of a reader's buffer with one part of a list (`netlink_dump`); one message about a
/// port with many VLANs may be longer.
const BUFFER: usize = 64 * 1024;
/// `NLM_F_DUMP_INTR`: what is listed changed meanwhile (`linux/netlink.h`).
const TORN: u16 = 0x10;
/// How often a list that changed meanwhile is asked for; the last answer is taken as it is, since on a busy host there is
/// always somebody who changes something.
const TRIES: usize = 5;
/// Seconds after which an answer will not come any more.
const PATIENCE: i64 = 60;
/// How long a header is (`struct nlmsghdr`).
const HEADER: usize = 16;

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The kernel refused it, with this error number (positive).
    Kernel(i32),
    /// It could not be asked.
    Socket(io::Error),
}

impl Refusal {
    /// Whether the kernel refused with this error number.
    pub(crate) fn is(&self, number: i32) -> bool {
        matches!(self, Refusal::Kernel(found) if *found == number)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Kernel(number) => write!(f, "the kernel: {}", io::Error::from_raw_os_error(*number)),
            Refusal::Socket(e) => write!(f, "netlink: {e}"),
        }
    }
}

impl std::error::Error for Refusal {}

type Done = Result<(), Refusal>;
type Listed<T> = Result<Vec<T>, Refusal>;

/// What is said and heard, in turns.
struct Talk {
    sequence: u32,
    buffer: Vec<u8>,
}

/// A socket of the network namespace that it was opened in.
pub(crate) struct Wire {
    socket: Socket,
    talk: Mutex<Talk>,
    /// Whether something was left unfinished on it: after a list that failed in the middle the kernel refuses the next one
    /// (`cb_running`).
    spoiled: AtomicBool,
}

impl Wire {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The answer is there when the request was sent. If ever it is not, that is an error and no end of all work.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        let talk = Mutex::new(Talk { sequence: 0, buffer: Vec::new() });
        Ok(Self { socket, talk, spoiled: AtomicBool::new(false) })
    }

    /// Whether it can be asked again.
    pub(crate) fn is_sound(&self) -> bool {
        !self.spoiled.load(Ordering::Relaxed)
    }

    /// Asks for something to be made.
    pub(crate) fn add(&self, message: RouteNetlinkMessage) -> Done {
        self.order(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Asks for something to be made, or put in the place of what is like it.
    pub(crate) fn replace(&self, message: RouteNetlinkMessage) -> Done {
        self.order(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Asks for something that is there to be changed or removed.
    pub(crate) fn change(&self, message: RouteNetlinkMessage) -> Done {
        self.order(message, 0)
    }

    fn order(&self, message: RouteNetlinkMessage, flags: u16) -> Done {
        self.ask(message, NLM_F_ACK | flags, &mut |_| {}).map(|_| ())
    }

    /// Lists: asked again while what is listed changes.
    fn list<T>(
        &self,
        request: &RouteNetlinkMessage,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Listed<T> {
        let mut tries = 0;
        loop {
            let mut found = Vec::new();
            let torn = self.ask(request.clone(), NLM_F_DUMP, &mut |message| found.extend(read(message)))?;
            tries += 1;
            if !torn || tries == TRIES {
                return Ok(found);
            }
        }
    }

    /// Sends a request and hands on what comes back, until its last answer; whether what was listed changed meanwhile.
    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        hear: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<bool, Refusal> {
        let answered = self.exchange(message, flags, hear);
        let unfinished = |refusal: &Refusal| flags & NLM_F_DUMP != 0 || matches!(refusal, Refusal::Socket(_));
        if answered.as_ref().is_err_and(unfinished) {
            self.spoiled.store(true, Ordering::Relaxed);
        }
        answered
    }

    fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        hear: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<bool, Refusal> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        talk.sequence = talk.sequence.wrapping_add(1);
        let Talk { sequence, buffer } = &mut *talk;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = *sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        buffer.clear();
        buffer.resize(message.buffer_len(), 0);
        message.serialize(buffer);
        self.socket.send(buffer, 0).map_err(Refusal::Socket)?;
        buffer.reserve(BUFFER);
        let mut torn = false;
        loop {
            buffer.clear();
            // `EINTR`: a signal that somebody listens to.
            match self.socket.recv(buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Refusal::Socket)?,
            };
            // What is left of a request that was given up is none of ours.
            for message in parts(buffer).filter(|message| sequence_of(message) == *sequence) {
                let single = flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
                let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                    Ok(message) => message,
                    Err(e) if single => return Err(Refusal::Socket(io::Error::other(e))),
                    Err(e) => {
                        tracing::warn!("the kernel lists something that cannot be read: {e}");
                        continue;
                    }
                };
                torn |= message.header.flags & TORN != 0;
                match message.payload {
                    // A list that failed in the middle says so at its end.
                    NetlinkPayload::Done(end) if end.code < 0 => return Err(Refusal::Kernel(-end.code)),
                    NetlinkPayload::Done(_) => return Ok(torn),
                    NetlinkPayload::Error(e) => match e.code {
                        Some(code) => return Err(Refusal::Kernel(-code.get())),
                        None => return Ok(torn),
                    },
                    NetlinkPayload::InnerMessage(inner) => {
                        hear(inner);
                        if single {
                            return Ok(torn);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

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

    /// All links; `request` chooses a family, and what is told of each.
    pub(crate) fn links(&self, request: LinkMessage) -> Listed<LinkMessage> {
        self.list(&RouteNetlinkMessage::GetLink(request), |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
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
        self.list(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
    }

    /// Routes of a family, or of both (`AddressFamily::Unspec`).
    pub(crate) fn routes(&self, family: AddressFamily) -> Listed<RouteMessage> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
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
        IpAddr::V4(ip) => {
            AddressMessageBuilder::<std::net::Ipv4Addr>::new().index(index).address(ip, prefix).build()
        }
        IpAddr::V6(ip) => {
            AddressMessageBuilder::<std::net::Ipv6Addr>::new().index(index).address(ip, prefix).build()
        }
    }
}

/// The number of the request that a message answers (`nlmsg_seq`).
fn sequence_of(message: &[u8]) -> u32 {
    message.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The messages of a datagram, each aligned to four octets.
fn parts(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let message = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_falls_into_its_messages() {
        let mut datagram = Vec::new();
        for length in [17_u32, 16, 20] {
            let mut message = length.to_ne_bytes().to_vec();
            message.resize(length as usize, u8::try_from(length).unwrap());
            message.resize(message.len().next_multiple_of(4), 0);
            datagram.extend(message);
        }
        let lengths = |datagram: &[u8]| parts(datagram).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&datagram), [17, 16, 20]);
        assert_eq!(
            parts(&datagram).map(sequence_of).collect::<Vec<_>>(),
            [0x1111_1111, 0x1010_1010, 0x1414_1414]
        );
        // What is cut short, or says that it is shorter than a header, is none.
        assert_eq!(lengths(&datagram[..datagram.len() - 1]), [17, 16]);
        assert_eq!(lengths(&[0; 32]), Vec::<usize>::new());
    }
}
