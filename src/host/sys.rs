//! The one place with `unsafe`: system calls that no safe wrapper offers.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Result};

// linux/if_tun.h: TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETIFINDEX
nix::ioctl_write_int!(tun_set_persist, b'T', 203);
nix::ioctl_write_int!(tun_set_owner, b'T', 204);
nix::ioctl_write_ptr!(tun_set_ifindex, b'T', 218, libc::c_uint);
nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

// linux/nsfs.h: NS_GET_NSTYPE
nix::ioctl_none!(ns_get_nstype, 0xb7, 3);

/// Whether a file is a network namespace: neither a mere file nor a namespace of another kind (ioctl_ns(2)). Where it is bound
/// to a name the link in /proc tells only that name.
pub(super) fn is_network_namespace(file: &impl AsRawFd) -> bool {
    // SAFETY: the request has no argument, and the descriptor is open for as long as `file` is borrowed.
    unsafe { ns_get_nstype(file.as_raw_fd()) }.is_ok_and(|kind| kind == libc::CLONE_NEWNET)
}

/// `SO_NETNS_COOKIE` (asm-generic/socket.h), since Linux 5.14.
const NETNS_COOKIE: libc::c_int = 71;

/// The number of a socket's network namespace, which no other one had since the machine was started or will have.
///
/// # Errors
/// `ENOPROTOOPT` where the kernel gives none.
pub(super) fn namespace_cookie(socket: &impl AsFd) -> Result<u64, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let mut cookie = 0_u64;
    let mut size = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: the descriptor is open during the call, which writes at most `size` octets to `cookie`; any are a number.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut size)
    };
    Errno::result(done).map(|_| cookie)
}

/// Makes a tap in the calling thread's network namespace, with this index; it goes with the descriptor unless it is
/// [kept](keep_tap). `owner` may open it without privilege; libvirt's unprivileged driver needs that. Single queue, with
/// the virtio header that QEMU's virtio NICs use.
///
/// # Errors
/// Exit 3 when the tun device is missing or closed to us; exit 4 when the kernel refuses.
pub(super) fn create_tap(name: &str, index: u32, owner: u32) -> Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|e| {
            Error::host("cannot open /dev/net/tun, which VM guests' network cards need")
                .caused_by(e)
                .hint("load it (`sudo modprobe tun`) and let users open it (`sudo chmod 0666 /dev/net/tun`, the default on distributions)")
        })?;
    // SAFETY: an all-zero ifreq is a valid value: it is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Error::failed(format!("`{name}` is too long for a link's name")));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or_default();
    let fail = |what: &str, e: nix::Error| Error::failed(format!("cannot {what} tap `{name}`")).caused_by(e);
    let fd = device.as_raw_fd();
    // SAFETY: the descriptor is open for the whole block; TUNSETIFINDEX and TUNSETIFF read an
    // integer and an ifreq, which outlive the calls; the other takes an integer by value.
    unsafe {
        tun_set_ifindex(fd, &raw const index).map_err(|e| fail("choose the index of", e))?;
        tun_set_iff(fd, &raw const request).map_err(|e| fail("create", e))?;
        tun_set_owner(fd, libc::c_ulong::from(owner)).map_err(|e| fail("set the owner of", e))?;
    }
    Ok(device.into())
}

/// Makes a tap stay when its descriptor is closed.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn keep_tap(name: &str, tap: &OwnedFd) -> Result<()> {
    // SAFETY: the descriptor is open during the call, which takes an integer by value.
    let kept = unsafe { tun_set_persist(tap.as_raw_fd(), 1) };
    kept.map(drop).map_err(|e| Error::failed(format!("cannot keep tap `{name}`")).caused_by(e))
}

/// A descriptor of a process: unlike its number, it never comes to mean another one.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub(crate) fn open_process(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor (closed on exec) or -1.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to a process by its descriptor.
///
/// # Errors
/// `ESRCH` when it has ended and was reaped, `EPERM` when it is not ours.
pub(crate) fn signal_process(process: &impl AsFd, signal: Signal) -> Result<(), Errno> {
    let fd = process.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open during the call; a null siginfo asks for the one kill(2) would send.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, no_info, 0) };
    Errno::result(done).map(drop)
}

/// Makes the kernel kill the command's process when the calling thread ends, however it ends: what it was told to do
/// must not happen once nobody waits for it.
pub(crate) fn ends_with_this_thread(command: &mut Command) -> &mut Command {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the kernel was told.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: the system calls are async-signal-safe, and the closure neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) }
}

/// Makes the kernel send SIGTERM to the command's process when the calling thread ends, however it ends, and gives
/// the process this signal mask (it would inherit the caller's).
pub(crate) fn tie_to_this_thread(command: &mut Command, mask: SigSet) -> &mut Command {
    let prepare = move || {
        mask.thread_set_mask()?;
        Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)
    };
    // SAFETY: both system calls are async-signal-safe, and the closure neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) }
}
