#!/usr/bin/env bash
# Writes down what this host holds, and later says what differs.
#
#   scripts/leak-check.sh snapshot DIRECTORY
#   scripts/leak-check.sh compare DIRECTORY    exit 1 and the differences, should there be any after 10 s of patience
#
# Everything is compared byte for byte. Left out is only what changes by itself: counters, timers, remaining life times
# of addresses and routes, and processes that have nothing to do with networks or VMs.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

links() { ip -d -j link | jq 'walk(if type == "object" then with_entries(select(.key | endswith("_timer") | not)) else . end)'; }
addresses() { ip -j address | jq 'del(.. | .valid_life_time?, .preferred_life_time?, .tentative?)'; }
routes() { for family in -4 -6; do ip -j "$family" route show table all | jq 'del(.. | .expires?)'; done; }
rules() { for family in -4 -6; do ip -j "$family" rule; done; }
vlans() { bridge -j vlan | jq .; }
rulesets() { nft -j list ruleset | jq 'del(.. | .counter?.packets?, .counter?.bytes?)'; }
forwarding() { grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/forwarding /proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null; }
# /run/netns itself stays mounted after its first use by anybody, `ip netns` included; it holds nothing by then.
namespaces() { ls -1 /run/netns 2>/dev/null; }
mounts() { awk '$5 ~ "netns/|netloom|/ns$" { print $5 }' /proc/self/mountinfo | sort; }

# Every process in another network namespace than this one, and everything that is or serves a VM or a network.
processes() {
    local here dir pid there name
    here=$(readlink /proc/self/ns/net)
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        there=$(readlink "$dir/ns/net" 2>/dev/null) || continue
        name=$(cat "$dir/comm" 2>/dev/null) || continue
        [ -n "$(tr -d '\0' <"$dir/cmdline" 2>/dev/null)" ] || continue # the kernel's own threads
        case $name in
        netloom* | qemu-system* | dnsmasq | libvirtd | incusd | virt*d | passt | udhcpc | dhclient) ;;
        *) [ "$there" != "$here" ] || continue ;;
        esac
        printf '%s %s %s\n' "$pid" "$name" "$(tr '\0\n' '  ' <"$dir/cmdline" 2>/dev/null | cut -c 1-200)"
    done | sort
}

files() {
    local place
    for place in /run/netloom "${XDG_RUNTIME_DIR:-/nonexistent}/netloom" /var/lib/netloom/labs \
        "${XDG_STATE_HOME:-$HOME/.local/state}/netloom/labs" "${NETLOOM_STATE_DIR:-/nonexistent}/labs"; do
        find "$place" 2>/dev/null || :
    done | sort -u
    find /tmp /var/tmp /dev/shm -maxdepth 1 -name '*netloom*' 2>/dev/null | sort
}

domains() {
    local uri
    for uri in qemu:///system; do
        if [ -S /run/libvirt/libvirt-sock ] || [ -S /run/libvirt/virtqemud-sock ]; then
            timeout 10 virsh -q -c "$uri" list --all --name 2>/dev/null | sort || :
        fi
    done
}

PARTS=(links addresses routes rules vlans rulesets forwarding namespaces mounts processes files domains)

snapshot() {
    local part
    mkdir -p "$1"
    for part in "${PARTS[@]}"; do "$part" >"$1/$part" 2>"$1/$part.errors" || :; done
}

compare() {
    local again status=1
    again=$(mktemp -d)
    # what was told to end may take a moment to be gone; what stays is a leak
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        snapshot "$again"
        # only a process more is a leak; others end when they like
        comm -13 "$1/processes" "$again/processes" | sort - "$1/processes" >"$again/union"
        mv "$again/union" "$again/processes"
        if diff -r "$1" "$again" >/dev/null; then
            status=0
            break
        fi
        sleep 1
    done
    [ "$status" = 0 ] || diff -ru "$1" "$again" >&2 || :
    rm -rf "$again"
    return "$status"
}

case ${1:-} in
snapshot) snapshot "${2:?a directory}" ;;
compare) compare "${2:?a directory}" ;;
*)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
