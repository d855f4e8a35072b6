#!/usr/bin/env bash
# The main job, for real: builds netloom, then builds topologies/hci-firewall.yaml with VM guests in a sandbox, measures
# its expectations, removes it, and shows that nothing is left. Changes nothing of this host's network.
#
#   scripts/demo.sh          everything (`make demo`)
#   scripts/demo.sh --lab    the lab alone, on the kernel that runs (used inside the VM)
#
# Where the running kernel has no VLANs, the same lab runs inside scripts/full-kernel-vm.sh, VM guests and all.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
NETLOOM=${NETLOOM:-target/release/netloom}
FILE=topologies/hci-firewall.yaml
LAB=hci-firewall

say() { printf '\n==> %s\n' "$*"; }
now() { date +%s%N; }
since() { awk -v ns=$(($(now) - $1)) 'BEGIN { printf "%.1f s", ns / 1e9 }'; }

times=
timed() { # NAME COMMAND...
    local name=$1 began status=0
    shift
    began=$(now)
    "$@" || status=$?
    times+=$(printf '  %-34s %s' "$name" "$(since "$began")")$'\n'
    return "$status"
}

lab() {
    local before status=0
    before=$(mktemp -d)
    scripts/leak-check.sh snapshot "$before"
    say "netloom up --sandbox $FILE"
    timed 'up, until every guest is ready' "$NETLOOM" up --sandbox "$FILE" || status=$?
    if [ "$status" = 0 ]; then
        say "netloom status $LAB"
        "$NETLOOM" status "$LAB" || status=$?
        say "netloom test $LAB"
        timed 'test, every expectation' "$NETLOOM" test "$LAB" || status=$?
    fi
    say "netloom down $LAB"
    timed 'down' "$NETLOOM" down "$LAB" || status=$?
    say 'what is left of it'
    if scripts/leak-check.sh compare "$before"; then
        echo 'nothing: links, addresses, routes, VLANs, rulesets, namespaces, processes and files are as before'
    else
        echo 'the differences above' >&2
        status=1
    fi
    rm -rf "$before"
    printf '\n%s' "$times"
    return "$status"
}

if [ "${1:-}" = --lab ]; then
    lab
    exit
fi

began=$(now)
say 'what building and running needs'
scripts/setup.sh
say 'cargo build --release'
timed 'build' cargo build --release
say 'netloom image build'
timed 'guest image' "$NETLOOM" image build
printf '\n%s' "$times"

status=0
if why=$(scripts/has-vlans.sh); then
    scripts/demo.sh --lab || status=$?
else
    say "Here, $why: the lab runs in a throw-away VM with the full kernel of the distribution."
    scripts/full-kernel-vm.sh scripts/demo.sh --lab || status=$?
fi
printf '  %-34s %s\n' 'the whole demo' "$(since "$began")"
exit "$status"
