#!/usr/bin/env python3
"""Answers every TCP connection and every UDP datagram on the ports served with one line: LAB/GUEST PROTOCOL/PORT."""

import socket
import threading


def facts(path="/etc/netloom/guest"):
    """The guest's name as LAB/GUEST, and its services as (protocol, port)."""
    names, services = {}, []
    with open(path) as lines:
        for line in lines:
            name, *words = line.split()
            if name == "serve":
                services.append((words[0], int(words[1])))
            elif name in ("lab", "guest"):
                names[name] = words[0]
    return names["lab"] + "/" + names["guest"], services


def bound(kind, port):
    """A socket for both families where the kernel has IPv6, else for IPv4."""
    try:
        sock = socket.socket(socket.AF_INET6, kind)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", port))
    except OSError:
        sock = socket.socket(socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
    return sock


def converse(connection, line):
    """Answers, then reads to the end: closing with unread data would reset the connection."""
    try:
        with connection:
            connection.settimeout(5)
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    except OSError:
        pass


def serve_tcp(sock, line):
    sock.listen(128)
    while True:
        connection, _ = sock.accept()
        threading.Thread(target=converse, args=(connection, line), daemon=True).start()


def serve_udp(sock, line):
    """Answers from the address that was asked, which on a guest with several need not be the one routing would take."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    while True:
        try:
            _, ancillary, _, peer = sock.recvmsg(65535, 256)
            # 16 bytes of address; the interface number behind them is left to routing.
            asked = [
                (level, kind, data[:16] + bytes(4))
                for level, kind, data in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
            ]
            sock.sendmsg([line], asked, 0, peer)
        except OSError:
            pass  # an ICMP error that an earlier answer drew


def main():
    name, services = facts()
    threads = []
    for protocol, port in services:
        line = f"{name} {protocol}/{port}\n".encode()
        kind, serve = {
            "tcp": (socket.SOCK_STREAM, serve_tcp),
            "udp": (socket.SOCK_DGRAM, serve_udp),
        }[protocol]
        threads.append(threading.Thread(target=serve, args=(bound(kind, port), line)))
    for thread in threads:
        thread.start()


main()
