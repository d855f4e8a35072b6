#!/bin/sh
# Says (by exit status) whether labs with VLANs can be built on the running kernel by this user, and if not, why (a clause on
# standard output). It makes a bridge with VLANs in a network namespace that vanishes with this script; asking for the
# kernel's version or modules would be a guess.
set -eu
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" = 0 ]; then own='unshare -n'; else own='unshare -Urn'; fi
if ! $own ip link add probe type bridge >/dev/null 2>&1; then
    echo 'this user cannot make a bridge in a network namespace of its own'
    exit 1
fi
if ! $own sh -ec '
    ip link add probe type bridge vlan_filtering 1 vlan_default_pvid 0
    ip link add link probe name probe.7 type vlan id 7
    bridge vlan add dev probe vid 7 self
' >/dev/null 2>&1; then
    echo 'this kernel has no VLANs'
    exit 1
fi
