#!/usr/bin/python3
"""A bare libvirt client: the same domains as netloom's, started as fast as libvirt takes them.

  bare_libvirt.py capture DIR    keeps the XML of every domain that runs now, and a copy of its read-only disks
  bare_libvirt.py run DIR N AT_ONCE [BOOTING]
      makes the taps, starts N of them with AT_ONCE connections, and no further one while BOOTING are not ready, says `created SECONDS`, and `up` when every guest's agent
      has opened its channel (an event, not a question); when its input ends it destroys them, says `destroyed SECONDS`
  bare_libvirt.py watch NAME...
      says `watching`, and `up` when the agents of these domains, whoever starts them, have all opened their channels
"""
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as tree

import libvirt

if sys.argv[1] == "--probe":
    sys.exit()
URI = "qemu:///system"
libvirt.registerErrorHandler(lambda *_: None, None)


def capture(directory):
    os.makedirs(directory, exist_ok=True)
    for number, domain in enumerate(sorted(libvirt.open(URI).listAllDomains(), key=lambda d: d.name())):
        root = tree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        for disk in root.iter("disk"):
            source = disk.find("source")
            copy = f"{directory}/{number}-{disk.find('target').get('dev')}"
            shutil.copyfile(source.get("file"), copy)
            source.set("file", copy)
        for log in root.iter("log"):
            log.set("file", f"{directory}/{number}.log")
        tree.ElementTree(root).write(f"{directory}/{number}.xml")


def at_once(threads, items, work):
    """Does `work(connection, item)` for every item, with that many connections."""
    waiting, failures = queue.Queue(), []
    for item in items:
        waiting.put(item)

    def worker():
        connection = libvirt.open(URI)
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(connection, item)
            except libvirt.libvirtError as error:
                failures.append(str(error))

    began = time.monotonic()
    all_threads = [threading.Thread(target=worker) for _ in range(threads)]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    if failures:
        sys.exit("\n".join(failures[:3]))
    return time.monotonic() - began


def agents(names, each=lambda: None):
    """An event that is set as soon as every one of these has opened its channel; `each` is called for every one."""
    libvirt.virEventRegisterDefaultImpl()
    ready, everyone = set(), threading.Event()

    def agent(_connection, domain, state, _reason, _opaque):
        if state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED:
            ready.add(domain.name())
            each()
            if ready.issuperset(names):
                everyone.set()

    def events():
        watcher = libvirt.open(URI)
        watcher.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, agent, None)
        registered.set()
        while True:
            libvirt.virEventRunDefaultImpl()

    registered = threading.Event()
    threading.Thread(target=events, daemon=True).start()
    registered.wait()
    return everyone


def watch(names):
    everyone = agents(names)
    print("watching", flush=True)
    if not everyone.wait(600):
        sys.exit("not all are ready")
    print("up", flush=True)
    sys.stdin.read()
    os._exit(0)


def run(directory, n, threads, booting):
    texts = [open(f"{directory}/{number}.xml").read() for number in range(n)]
    names = [tree.fromstring(text).find("name").text for text in texts]
    taps = [tap.get("dev") for text in texts for tap in tree.fromstring(text).findall(".//interface/target")]
    batch = "link add pf-machines up type bridge\n"
    batch += "".join(f"tuntap add dev {tap} mode tap\nlink set {tap} master pf-machines up\n" for tap in taps)
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)

    window = threading.Semaphore(booting)

    def create(connection, text):
        window.acquire()
        connection.createXML(text, 0)

    everyone = agents(names, window.release)
    created = at_once(threads, texts, create)
    print(f"created {created:.4f}", flush=True)
    if not everyone.wait(600):
        sys.exit("not all are ready")
    print("up", flush=True)
    sys.stdin.read()
    destroyed = at_once(threads, names, lambda connection, name: connection.lookupByName(name).destroy())
    batch = "".join(f"link del {tap}\n" for tap in taps) + "link del pf-machines\n"
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    print(f"destroyed {destroyed:.4f}", flush=True)
    os._exit(0)


if sys.argv[1] == "capture":
    capture(sys.argv[2])
elif sys.argv[1] == "watch":
    watch(sys.argv[2:])
else:
    n = int(sys.argv[3])
    run(sys.argv[2], n, int(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else n)
