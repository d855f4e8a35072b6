//! One rtnetlink socket, asked and answered on the caller's own thread. The kernel handles a request within the call that
//! sends it and has the answer ready when that returns, so waiting costs nothing, and a request costs two system calls:
//! no task, no queue, no buffer of its own for each of a thousand namespaces.

mod answer;
mod news;
mod requests;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike};

pub(crate) use news::News;
pub(crate) use requests::address;

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
        let socket = Socket::new(NETLINK_ROUTE)?;
        // That gives it an address, too (`netlink_autobind`).
        socket.connect(&SocketAddr::new(0, 0))?;
        // The answer is there when the request was sent. If ever it is not, that is an error and no end of all work.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        // What a list is asked to be restricted to counts only where everything that is asked is checked; kernels before 4.20
        // cannot do so, and list more than was asked for.
        let _ = socket.set_netlink_get_strict_chk(true);
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
        let mut answers = Answers { sequence: *sequence, flags, torn: false };
        loop {
            buffer.clear();
            match self.socket.recv(buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {} // a signal that somebody listens to
                other => {
                    other.map_err(Refusal::Socket)?;
                    if answers.read(buffer, hear)? {
                        return Ok(answers.torn);
                    }
                }
            }
        }
    }
}

/// The answers to one request.
struct Answers {
    sequence: u32,
    /// Of the request.
    flags: u16,
    /// Whether what was listed changed meanwhile.
    torn: bool,
}

impl Answers {
    /// Reads a datagram; whether the last answer was in it.
    fn read(&mut self, datagram: &[u8], hear: &mut dyn FnMut(RouteNetlinkMessage)) -> Result<bool, Refusal> {
        // A question is answered by one message; a list ends with a message of its own, an order with an acknowledgement.
        let single = self.flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
        // What is left of a request that was given up is none of ours.
        for message in parts(datagram).filter(|message| sequence_of(message) == self.sequence) {
            let message = match answer::decode(message) {
                Ok(message) => message,
                Err(e) if single => return Err(Refusal::Socket(io::Error::other(e))),
                Err(e) => {
                    tracing::warn!("the kernel lists something that cannot be read: {e}");
                    continue;
                }
            };
            self.torn |= message.header.flags & TORN != 0;
            match message.payload {
                // A list that failed in the middle says so at its end.
                NetlinkPayload::Done(end) if end.code < 0 => return Err(Refusal::Kernel(-end.code)),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(e) => {
                    return e.code.map_or(Ok(true), |code| Err(Refusal::Kernel(-code.get())));
                }
                NetlinkPayload::InnerMessage(inner) => {
                    hear(inner);
                    if single {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
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
    /// A message with a number and a body, as the kernel writes it.
    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let header =
            [length.to_ne_bytes(), [kind.to_ne_bytes(), flags.to_ne_bytes()].concat().try_into().unwrap()];
        let mut out = [header.concat(), sequence.to_ne_bytes().to_vec(), vec![0; 4], body.to_vec()].concat();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    /// A link with a name, or with something else that is no text (`RTM_NEWLINK`; `IFLA_IFNAME`).
    fn link(sequence: u32, name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + name.len() + 1).unwrap();
        let attribute = [&length.to_ne_bytes(), &3_u16.to_ne_bytes(), name, &[0]].concat();
        message(16, 2, sequence, &[vec![0; 16], attribute].concat())
    }

    const ERROR: u16 = 2;
    const DONE: u16 = 3;

    /// What is heard of datagrams, and how it ends.
    fn read(flags: u16, datagrams: &[Vec<u8>]) -> (usize, Result<bool, Refusal>, bool) {
        let mut answers = Answers { sequence: 7, flags, torn: false };
        let mut heard = 0;
        for datagram in datagrams {
            match answers.read(datagram, &mut |_| heard += 1) {
                Ok(false) => {}
                end => return (heard, end, answers.torn),
            }
        }
        (heard, Ok(false), answers.torn)
    }

    #[test]
    fn a_list_ends_where_the_kernel_says_so_and_how() {
        let two = [link(7, b"a"), link(7, b"b")].concat();
        let done = |code: i32, flags| message(DONE, flags, 7, &code.to_ne_bytes());
        assert!(matches!(read(NLM_F_DUMP, &[two.clone(), done(0, 2)]), (2, Ok(true), false)));
        assert!(matches!(read(NLM_F_DUMP, &[two.clone(), done(0, 2 | TORN)]), (2, Ok(true), true)));
        // It failed in the middle: what was heard is not all.
        let (heard, end, _) = read(NLM_F_DUMP, &[two.clone(), done(-libc::EMSGSIZE, 2)]);
        assert!(heard == 2 && end.is_err_and(|e| e.is(libc::EMSGSIZE)));
        // Without an end it goes on, and the answers to another request are not this one's.
        assert!(matches!(read(NLM_F_DUMP, &[two]), (2, Ok(false), false)));
        let other = [link(6, b"a"), message(DONE, 2, 6, &[0; 4])].concat();
        assert!(matches!(read(NLM_F_DUMP, &[other, done(0, 2)]), (0, Ok(true), false)));
    }

    #[test]
    fn an_order_is_acknowledged_or_refused() {
        let answer = |code: i32| message(ERROR, 0, 7, &[code.to_ne_bytes().to_vec(), vec![0; 16]].concat());
        assert!(matches!(read(NLM_F_ACK, &[answer(0)]), (0, Ok(true), false)));
        let (_, end, _) = read(NLM_F_ACK, &[answer(-libc::EBUSY)]);
        assert!(end.is_err_and(|e| e.is(libc::EBUSY)));
    }

    #[test]
    fn what_cannot_be_read_ends_a_question_and_is_left_out_of_a_list() {
        let odd = link(7, b"caf\xe9");
        assert!(matches!(read(0, &[link(7, b"a")]), (1, Ok(true), false)));
        assert!(matches!(read(0, std::slice::from_ref(&odd)), (0, Err(Refusal::Socket(_)), false)));
        let done = message(DONE, 2, 7, &[0; 4]);
        assert!(matches!(read(NLM_F_DUMP, &[odd, link(7, b"a"), done]), (1, Ok(true), false)));
    }
}
