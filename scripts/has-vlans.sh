#!/bin/sh
# Says (by exit status) whether the running kernel can do VLANs on a bridge, by making them in a network namespace that
# vanishes with this script. Asking for the kernel's version or modules would be a guess.
set -eu
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" = 0 ]; then own='unshare -n'; else own='unshare -Urn'; fi
exec $own sh -ec '
    ip link add probe type bridge vlan_filtering 1 vlan_default_pvid 0
    ip link add link probe name probe.7 type vlan id 7
    bridge vlan add dev probe vid 7 self
' >/dev/null 2>&1
