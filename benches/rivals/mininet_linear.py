#!/usr/bin/python3
"""mininet's linear topology on Linux bridges: says `up`, and stops when its input ends."""
import sys

from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import LinearTopo

if sys.argv[1] == "--probe":
    sys.exit()
setLogLevel("error")
net = Mininet(topo=LinearTopo(k=int(sys.argv[1])), switch=LinuxBridge, controller=None)
net.start()
print("up", flush=True)
sys.stdin.read()
net.stop()
