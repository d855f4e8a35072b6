//! The services that guests answer: one line, `LABEL tcp/80`, for each TCP connection and each UDP datagram.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{Context, Error, Result};
use crate::topology::{Protocol, Service};

/// Connections answered at a time for each service; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;

/// How long a client may take to read its line and close.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers `services` in the calling thread's network namespace until the process ends. `label` is `LAB/GUEST`. ICMP
/// needs no server and is passed over. A host without IPv6 is served over IPv4 alone.
///
/// # Errors
/// When a port cannot be bound.
pub fn run(label: &str, services: &[Service]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the runtime".into())?;
    runtime.block_on(async {
        let mut tasks = start(label, services, &EVERYWHERE)?;
        while tasks.join_next().await.is_some() {}
        // A guest may serve nothing but ping: stay, for a supervisor would take an end for a failure.
        std::future::pending::<Result<()>>().await
    })
}

/// Every address of both families.
pub const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// Binds `services` at these addresses in the calling thread's network namespace and answers them until what is
/// returned is dropped. Everything is bound when this returns.
///
/// # Errors
/// When a port cannot be bound.
pub fn start(label: &str, services: &[Service], at: &[IpAddr]) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for service in services.iter().filter(|service| service.protocol != Protocol::Icmp) {
        let line: Arc<[u8]> = format!("{label} {service}\n").into_bytes().into();
        let failed = || format!("cannot serve {service}");
        for address in at {
            let socket = match bind(service.protocol, SocketAddr::new(*address, service.port)) {
                Ok(socket) => socket,
                Err(e) if address.is_ipv6() && no_ipv6(&e) => continue,
                Err(e) => return Err(Error::failed(failed()).caused_by(e)),
            };
            let line = Arc::clone(&line);
            if service.protocol == Protocol::Tcp {
                let listener = TcpListener::from_std(socket.into()).context(failed)?;
                tasks.spawn(serve_tcp(listener, line));
            } else {
                let socket = UdpSocket::from_std(socket.into()).context(failed)?;
                tasks.spawn(serve_udp(socket, line));
            }
        }
    }
    Ok(tasks)
}

fn no_ipv6(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let tcp = protocol == Protocol::Tcp;
    let (kind, transport) =
        if tcp { (Type::STREAM, SocketProtocol::TCP) } else { (Type::DGRAM, SocketProtocol::UDP) };
    let socket = Socket::new(Domain::for_address(address), kind, Some(transport))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if tcp {
        socket.set_reuse_address(true)?; // a restarted server need not wait for old connections
    } else if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if tcp {
        socket.listen(1024)?;
    }
    Ok(socket)
}

async fn serve_tcp(listener: TcpListener, line: Arc<[u8]>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client is gone already.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let line = Arc::clone(&line);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &line)).await;
            drop(permit);
        });
    }
}

/// Writes the line, then takes what the client still sends: to close over unread data would reset the connection and
/// could destroy the line on its way.
async fn answer(mut stream: TcpStream, line: &[u8]) -> io::Result<()> {
    stream.write_all(line).await?;
    stream.shutdown().await?;
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Answers each datagram from the address that it was sent to, which on a guest with several is not always the one
/// that the kernel would choose.
async fn serve_udp(socket: UdpSocket, line: Arc<[u8]>) {
    loop {
        let _ = socket
            .async_io(Interest::READABLE, || {
                let Some((asked, client)) = receive(&socket)? else { return Ok(()) };
                let pieces = [io::IoSlice::new(&line)];
                let control = asked.as_ref().map(Asked::control);
                let flags = MsgFlags::MSG_DONTWAIT;
                // A reply that cannot be sent now is lost, as datagrams are.
                let _ = sendmsg(socket.as_raw_fd(), &pieces, control.as_slice(), flags, Some(&client));
                Ok(())
            })
            .await;
    }
}

/// The address of ours that a datagram was sent to.
enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Asked {
    fn control(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Option<(Option<Asked>, SockaddrStorage)>> {
    let mut buffer = [0; 2048];
    let mut pieces = [io::IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut pieces,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let Some(client) = message.address else { return Ok(None) };
    let asked = message.cmsgs()?.find_map(|item| match item {
        // The interface is left to routing: the way back may be another one.
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Asked::V4(libc::in_pktinfo { ipi_ifindex: 0, ..info }))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let index = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
            let info = libc::in6_pktinfo { ipi6_ifindex: index, ..info };
            (!address.is_multicast()).then_some(Asked::V6(info))
        }
        _ => None,
    });
    Ok(Some((asked, client)))
}
