#!/usr/bin/env bash
# Where the time of a verb goes: on the processor by kernel function (perf), asleep by kernel stack (scripts/waits.py), and
# by system call (strace); in namespaces of its own.
#
#   scripts/profile.sh [up|converged|plan|status|down] [N] [fabric|linear]     default: up 500 fabric
#
# NETLOOM names another binary. The release binary is stripped: for netloom's own functions build it with
# CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
verb=${1:-up} n=${2:-500} shape=${3:-fabric}
NETLOOM=$(readlink -f "${NETLOOM:-target/release/netloom}")
GENERATE=${GENERATE:-}
export NETLOOM

if [ -z "$GENERATE" ]; then
    GENERATE=$(cargo bench --no-run --bench side_by_side --message-format=json-render-diagnostics |
        jq -r 'select(.reason == "compiler-artifact" and .target.name == "side_by_side") | .executable')
fi
work=$(mktemp -d)
inside=
trap '[ -z "$inside" ] || kill -9 "$inside" 2>/dev/null; rm -rf "$work"' EXIT
"$GENERATE" --generate "$shape" "$n" >"$work/lab.yaml"
command -v perf >/dev/null || printf 'no perf here (linux-perf on Debian): system calls alone\n' >&2

# shellcheck disable=SC2016 # expanded inside
unshare --net --mount --pid --fork --mount-proc --kill-child sh -euc '
    work=$1 verb=$2 up="$NETLOOM up --guests namespace $1/lab.yaml"
    mount -t tmpfs none /run
    mkdir -p /run/netns /run/netloom /run/state
    export NETLOOM_STATE_DIR=/run/state
    ip link set lo up
    case $verb in
    up) before=: command=$up after="$NETLOOM down bench" ;;
    down) before=$up command="$NETLOOM down bench" after=: ;;
    converged) before=$up command=$up after="$NETLOOM down bench" ;;
    plan) before=$up command="$NETLOOM plan --guests namespace $work/lab.yaml" after="$NETLOOM down bench" ;;
    status) before=$up command="$NETLOOM status bench" after="$NETLOOM down bench" ;;
    *) echo "up, converged, plan, status or down"; exit 2 ;;
    esac
    quietly() { "$@" >/dev/null 2>&1; }
    if command -v perf >/dev/null; then
        quietly $before
        quietly perf record -F 2000 -e cpu-clock -g -o "$work/perf" $command
        quietly $after
        printf "\n== %s: where the processor was (its own time; %%)\n" "$verb"
        perf report -i "$work/perf" --no-children --stdio -g none --percent-limit 0.8 2>/dev/null | grep -v "^#" | grep -v "^$" | head -40
        printf "\n== %s: by what called (with what it called; %%)\n" "$verb"
        perf report -i "$work/perf" --children --stdio -g none --percent-limit 3 2>/dev/null | grep -v "^#" | grep -v "^$" | head -60
    fi
    quietly $before
    printf "\n== %s: where it slept in the kernel\n" "$verb"
    python3 scripts/waits.py $command
    quietly $after
    quietly $before
    quietly strace -f -c -S time -o "$work/strace" $command
    quietly $after
    printf "\n== %s: system calls\n" "$verb"
    head -25 "$work/strace"
' sh "$work" "$verb" &
inside=$! # `unshare` waits deaf to signals
wait "$inside"
inside=
