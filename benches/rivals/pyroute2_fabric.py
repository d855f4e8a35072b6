#!/usr/bin/python3
"""N x (bridge, namespace, veth between them, addresses, up) by pyroute2: says `up`, removes all when its input ends."""
import sys

from pyroute2 import IPRoute, NetNS, netns

if sys.argv[1] == "--probe":
    sys.exit()
n = int(sys.argv[1])
here = IPRoute()
bridges = []
for i in range(n):
    net = f"10.{i >> 8}.{i & 255}"
    netns.create(f"pf-n{i}")
    here.link("add", ifname=f"pf-b{i}", kind="bridge")
    bridge = here.link_lookup(ifname=f"pf-b{i}")[0]
    here.addr("add", index=bridge, address=f"{net}.1", prefixlen=24)
    here.link("set", index=bridge, state="up")
    here.link("add", ifname=f"pf-v{i}", kind="veth", peer={"ifname": "eth0", "net_ns_fd": f"pf-n{i}"})
    port = here.link_lookup(ifname=f"pf-v{i}")[0]
    here.link("set", index=port, master=bridge, state="up")
    with NetNS(f"pf-n{i}") as there:
        end = there.link_lookup(ifname="eth0")[0]
        there.addr("add", index=end, address=f"{net}.2", prefixlen=24)
        there.link("set", index=end, state="up")
        there.link("set", index=1, state="up")
    bridges.append((bridge, port))
print("up", flush=True)
sys.stdin.read()
for i, (bridge, port) in enumerate(bridges):
    here.link("del", index=port)
    here.link("del", index=bridge)
    netns.remove(f"pf-n{i}")
