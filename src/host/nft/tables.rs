//! The names of a place's tables, asked of the kernel itself: a lab may have a thousand places, and `nft` is a program
//! to start for each, which reads every rule of a place before it says anything.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::error::{Context, Error, Result};
use crate::host::netns;
use crate::resource::{Place, RulesetFamily};

/// A netlink header: length, type, flags, sequence number, port (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;
/// What nfnetlink puts behind it: family, version, resource (`struct nfgenmsg`).
pub(super) const GENERIC: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's type.
pub(super) const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE`.
const NEW_TABLE: usize = NFTABLES as usize;
const GET_TABLE: u16 = NFTABLES | 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: what is listed changed meanwhile.
const INTERRUPTED: usize = 0x10;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: usize = 2;
const DONE: usize = 3;
/// `NFTA_TABLE_NAME`.
const NAME: usize = 1;
/// `NFPROTO_INET` and `NFPROTO_BRIDGE`.
const INET: u8 = 1;
const BRIDGE: u8 = 7;
/// The kernel fills at most 32 KiB of a reader's buffer with one part of a list.
const BUFFER: usize = 32 * 1024;

/// A table's family and name.
type Table = (RulesetFamily, String);

/// A list as far as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) tables: Vec<Table>,
    /// Whether tables came or went meanwhile, so that some may be missing.
    torn: bool,
}

/// The tables of a place in the families that netloom uses; none where the kernel has no nftables.
///
/// # Errors
/// When the place cannot be entered or the caller may not look.
pub fn tables(place: &Place) -> Result<Vec<Table>> {
    netns::within(place, here)?
}

/// The same, of the network namespace that the calling thread is in.
///
/// # Errors
/// When the caller may not look.
pub(crate) fn here() -> Result<Vec<Table>> {
    match list() {
        // No netfilter over netlink, or no nftables behind it.
        Err(Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(Vec::new()),
        Err(e @ (Errno::EPERM | Errno::EACCES)) => Err(Error::host("may not list the tables of nftables")
            .caused_by(e)
            .hint("run as root, or use `netloom up --sandbox`, which needs no privilege")),
        other => other.context(|| "cannot list the tables of nftables".into()),
    }
}

fn list() -> Result<Vec<Table>, Errno> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    loop {
        let list = dump(&socket)?;
        if !list.torn {
            return Ok(list.tables);
        }
    }
}

fn dump(socket: &OwnedFd) -> Result<List, Errno> {
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut list = List::default();
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if list.read(&buffer[..length])? {
            return Ok(list);
        }
    }
}

/// Asks for the tables of every family.
fn request() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + GENERIC);
    out.extend(20_u32.to_ne_bytes());
    out.extend(GET_TABLE.to_ne_bytes());
    out.extend(DUMP.to_ne_bytes());
    out.extend([0; 8 + GENERIC]);
    out
}

impl List {
    /// Reads the messages of one part; true at the end.
    pub(crate) fn read(&mut self, mut part: &[u8]) -> Result<bool, Errno> {
        while let Some(length) = number(part, 0, 4).filter(|length| (HEADER..=part.len()).contains(length)) {
            let message = &part[..length];
            self.torn |= number(message, 6, 2).is_some_and(|flags| flags & INTERRUPTED != 0);
            match number(message, 4, 2) {
                Some(ERROR | DONE) => {
                    // Both carry the negative number of an error, or 0.
                    let code = message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
                    return match code.map_or(0, i32::from_ne_bytes) {
                        0 => Ok(true),
                        code => Err(Errno::from_raw(-code)),
                    };
                }
                Some(NEW_TABLE) => self.tables.extend(table(&message[HEADER..])),
                _ => {}
            }
            part = part.get(aligned(length)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// A table of one of our families.
fn table(message: &[u8]) -> Option<Table> {
    let family = match *message.first()? {
        INET => RulesetFamily::Inet,
        BRIDGE => RulesetFamily::Bridge,
        _ => return None,
    };
    let mut attributes = message.get(GENERIC..)?;
    loop {
        let length = number(attributes, 0, 2).filter(|length| (4..=attributes.len()).contains(length))?;
        // The upper two bits are flags.
        if number(attributes, 2, 2)? & 0x3fff == NAME {
            let text = attributes[4..length].split(|byte| *byte == 0).next()?;
            return Some((family, String::from_utf8_lossy(text).into_owned()));
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

/// A number of 2 or 4 bytes in the machine's own order.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + size)?;
    match size {
        2 => Some(usize::from(u16::from_ne_bytes(bytes.try_into().ok()?))),
        _ => usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok(),
    }
}

/// Messages and attributes begin at multiples of 4.
pub(super) fn aligned(length: usize) -> usize {
    length.div_ceil(4) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(u32::try_from(HEADER + body.len()).unwrap_or(0).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend([0; 8]);
        out.extend(body);
        out.resize(aligned(out.len()), 0);
        out
    }

    /// A table as the kernel tells it: a number of flags, then its name.
    fn told(family: u8, name: &str) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend([8_u16, 2].map(u16::to_ne_bytes).concat());
        body.extend(0_u32.to_ne_bytes());
        let length = u16::try_from(5 + name.len()).unwrap_or(0);
        body.extend([length, 1].map(u16::to_ne_bytes).concat());
        body.extend(name.bytes().chain([0]));
        body
    }

    #[test]
    fn tables_of_our_families_are_read() {
        let mut part = message(0xa00, 2, &told(1, "netloom_a"));
        part.extend(message(0xa00, 2, &told(2, "filter")));
        part.extend(message(0xa00, 2, &told(7, "netloom_lab")));
        let mut list = List::default();
        assert_eq!(list.read(&part), Ok(false));
        assert_eq!(list.read(&message(3, 2, &[0; 4])), Ok(true));
        let wanted = [(RulesetFamily::Inet, "netloom_a"), (RulesetFamily::Bridge, "netloom_lab")];
        assert_eq!(list.tables, wanted.map(|(family, name)| (family, name.to_owned())));
        assert!(!list.torn);
        // Whatever is cut short says nothing.
        for length in 0..part.len() {
            assert_eq!(List::default().read(&part[..length]), Ok(false));
        }
    }

    #[test]
    fn a_list_that_changed_meanwhile_and_a_refusal_are_told() {
        let mut list = List::default();
        assert_eq!(list.read(&message(3, 0x12, &[0; 4])), Ok(true));
        assert!(list.torn);
        let refused = message(2, 0, &(-1_i32).to_ne_bytes());
        assert_eq!(List::default().read(&refused), Err(Errno::EPERM));
    }
}
