//! Being told of changes in a network namespace, whoever makes them.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// `RTMGRP_LINK` (links, ports and their VLANs), `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` (`linux/rtnetlink.h`). Not routes:
/// a host's change all the time where a routing daemon runs, and none of them is a lab's.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// A socket that the kernel puts news of links and addresses into. It does so within the change, so that whoever looks
/// after a change finds it. Not told is who writes a link's settings below `/proc/sys`, nor who changes alias, group or options of a
/// link that is down (`netdev_state_change` asks for `IFF_UP`).
pub(crate) struct News(Socket);

impl News {
    /// Listens from now on, in the calling thread's network namespace.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Whether nothing came since. More than the socket can hold (`ENOBUFS`) is something.
    pub(crate) fn is_none(&self) -> bool {
        let mut start = [0_u8; 16];
        let came = self.0.recv(&mut &mut start[..], libc::MSG_DONTWAIT);
        came.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }
}
