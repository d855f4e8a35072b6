//! Which state of a namespace's nftables something was said of: the kernel counts the transactions that changed any of its
//! tables (`NFT_MSG_GETGEN`). As long as the count is the same nothing changed, and no table has to be listed to know it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use serde::{Deserialize, Serialize};

use super::tables::{GENERIC, HEADER, NFTABLES, aligned, number};
use crate::host::sys;

/// `NFT_MSG_NEWGEN` and `NFT_MSG_GETGEN`, `NLM_F_REQUEST`, `NFTA_GEN_ID` (`linux/netfilter/nf_tables.h`, `linux/netlink.h`).
const NEW: usize = NFTABLES as usize | 15;
const GET: u16 = NFTABLES | 16;
const REQUEST: u16 = 1;
const ID: usize = 1;
/// More than the kernel has to say.
const BUFFER: usize = 1024;

/// One state of one namespace's tables. A namespace's cookie comes never again until the machine is started anew, and
/// neither does a count within it, but for one after four thousand million transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    boot: String,
    namespace: u64,
    number: u32,
}

impl Generation {
    /// That of the network namespace that the calling thread is in; `None` where the kernel does not say so much.
    pub(crate) fn here() -> Option<Self> {
        Some(Self { boot: boot()?.to_owned(), ..asked().ok()?? })
    }
}

/// What tells this run of the machine from all others.
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned());
    BOOT.get_or_init(read).as_deref().filter(|id| !id.is_empty())
}

fn asked() -> Result<Option<Generation>, Errno> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
    let socket: OwnedFd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let namespace = sys::namespace_cookie(&socket)?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut buffer = [0; BUFFER];
    // The answer is there when the request was sent; if ever it is not, the table is listed.
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    Ok(read(&buffer[..length]).map(|number| Generation { boot: String::new(), namespace, number }))
}

fn request() -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERIC).unwrap_or_default();
    let kind = [GET.to_ne_bytes(), REQUEST.to_ne_bytes()].concat();
    [length.to_ne_bytes().as_slice(), &kind, &[0; 8 + GENERIC]].concat()
}

/// The count in an answer; an error has none.
fn read(answer: &[u8]) -> Option<u32> {
    if number(answer, 4, 2)? != NEW {
        return None;
    }
    let mut attributes = answer.get(HEADER + GENERIC..)?;
    loop {
        let length = number(attributes, 0, 2).filter(|length| (4..=attributes.len()).contains(length))?;
        if number(attributes, 2, 2)? & 0x3fff == ID {
            return Some(u32::from_be_bytes(attributes.get(4..8)?.try_into().ok()?));
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: usize, attributes: &[(u16, u32)]) -> Vec<u8> {
        let kind = u16::try_from(kind).unwrap_or_default();
        let mut out = [0_u32.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), &[0; 10 + GENERIC]].concat();
        for (name, value) in attributes {
            out.extend([8_u16.to_ne_bytes(), name.to_ne_bytes()].concat());
            out.extend(value.to_be_bytes());
        }
        out
    }

    #[test]
    fn the_count_is_found_among_others_and_an_error_has_none() {
        let whole = answer(NEW, &[(2, 77), (1, 0x0102_0304)]);
        assert_eq!(read(&whole), Some(0x0102_0304));
        assert_eq!(read(&answer(NEW, &[(2, 77)])), None);
        assert_eq!(read(&answer(2, &[(1, 5)])), None); // NLMSG_ERROR
        assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
        assert_eq!(read(&[&answer(NEW, &[]), [0; 16].as_slice()].concat()), None);
    }
}
