//! Whether packets are passed on, asked over netlink (`RTM_GETNETCONF`): the same number as in `net.ipv4.ip_forward` and
//! `net.ipv6.conf.all.forwarding`. For a file below `/proc/sys` the kernel makes an entry and an inode for each directory on
//! the way and for the file, anew in each namespace, which takes it ten times as long.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// A netlink header: length, type, flags, sequence number, port (`struct nlmsghdr`).
const HEADER: usize = 16;
/// What is behind it: the family, padded to four octets (`struct netconfmsg`).
const FAMILY: usize = 4;
/// `RTM_NEWNETCONF`, `RTM_GETNETCONF`, `NLM_F_REQUEST` (`linux/rtnetlink.h`, `linux/netlink.h`).
const NEW: u16 = 80;
const GET: u16 = 82;
const REQUEST: u16 = 1;
/// `NETCONFA_IFINDEX` and what stands for all links; `NETCONFA_FORWARDING` (`linux/netconf.h`).
const LINK: u16 = 1;
const ALL: i32 = -1;
const FORWARDING: u16 = 2;
/// More than the kernel has to say.
const BUFFER: usize = 1024;

/// The settings that are told so.
pub(super) fn family(path: &str) -> Option<u8> {
    let family = match path {
        "ipv4/ip_forward" => libc::AF_INET,
        super::FORWARDING_6 => libc::AF_INET6,
        _ => return None,
    };
    u8::try_from(family).ok()
}

/// A socket of the network namespace that the calling thread is in when it first asks.
#[derive(Default)]
pub(super) struct Asker(Option<OwnedFd>);

impl Asker {
    /// The setting of a family; `None` where the kernel does not say.
    pub(super) fn of(&mut self, family: u8) -> Option<i32> {
        self.ask(family).ok().flatten()
    }

    fn ask(&mut self, family: u8) -> Result<Option<i32>, Errno> {
        let socket = match self.0.take() {
            Some(open) => open,
            None => open()?,
        };
        send(socket.as_raw_fd(), &request(family), MsgFlags::empty())?;
        let mut buffer = [0; BUFFER];
        // The answer is there when the request was sent; if ever it is not, the file has to do.
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        self.0 = Some(socket); // only now: an answer that comes late is not the next one's
        Ok(read(&buffer[..length]))
    }
}

fn open() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
}

fn request(family: u8) -> Vec<u8> {
    let attribute = [8_u16.to_ne_bytes(), LINK.to_ne_bytes()].concat();
    let body = [&[family, 0, 0, 0], attribute.as_slice(), &ALL.to_ne_bytes()].concat();
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let kind = [GET.to_ne_bytes(), REQUEST.to_ne_bytes()].concat();
    [length.to_ne_bytes().as_slice(), &kind, &[0; 8], &body].concat()
}

/// The number in an answer; an error is none.
fn read(answer: &[u8]) -> Option<i32> {
    let short = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if short(answer, 4)? != NEW {
        return None;
    }
    let mut attributes = answer.get(HEADER + FAMILY..)?;
    loop {
        let length = usize::from(short(attributes, 0)?).max(4); // shorter than its own head it would be read for ever
        if short(attributes, 2)? == FORWARDING {
            return Some(i32::from_ne_bytes(attributes.get(4..8)?.try_into().ok()?));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, attributes: &[(u16, i32)]) -> Vec<u8> {
        let mut out = [0_u32.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), &[0; 10], &[2, 0, 0, 0]].concat();
        for (name, value) in attributes {
            out.extend([8_u16.to_ne_bytes(), name.to_ne_bytes()].concat());
            out.extend(value.to_ne_bytes());
        }
        out
    }

    #[test]
    fn the_number_is_found_among_others_and_an_error_is_none() {
        assert_eq!(read(&answer(NEW, &[(LINK, ALL), (3, 0), (FORWARDING, 1), (4, 0)])), Some(1));
        assert_eq!(read(&answer(NEW, &[(LINK, ALL)])), None);
        assert_eq!(read(&answer(2, &[(FORWARDING, 1)])), None); // NLMSG_ERROR
        let whole = answer(NEW, &[(LINK, ALL), (FORWARDING, 1)]);
        assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
        assert_eq!(read(&[&answer(NEW, &[]), [0; 16].as_slice()].concat()), None); // attributes without a length
    }

    /// The kernel's own files are the other witness; the tests with namespaces see them changed.
    #[test]
    fn it_says_what_the_file_says() {
        let mut asker = Asker::default();
        for path in ["ipv4/ip_forward", super::super::FORWARDING_6] {
            let Ok(file) = std::fs::read_to_string(super::super::file(path)) else { continue };
            let told = family(path).and_then(|family| asker.of(family)).map(|told| told.to_string());
            assert_eq!(told.as_deref(), Some(file.trim()), "{path}");
        }
        assert_eq!(family("ipv4/conf/all/send_redirects"), None);
    }
}
