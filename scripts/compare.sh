#!/usr/bin/env bash
# Compares the networking modes with what they promise: `netloom compare` under a kernel that has VLANs. Changes nothing of
# this host's network.
#
#   scripts/compare.sh [ARGUMENT...]    everything (`make compare`, with arguments `make compare ARGS="proxmox --json"`)
#
# Where the running kernel has no VLANs, it runs inside scripts/full-kernel-vm.sh: minutes instead of seconds without KVM.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
NETLOOM=${NETLOOM:-target/release/netloom}

{ # only the comparison itself goes to standard output, which may be a document
    scripts/setup.sh
    cargo build --release
    case " $* " in
    *' --guests vm '* | *' --guests=vm '*) "$NETLOOM" image build ;; # the VM could not download it
    esac
} >&2

if why=$(scripts/has-vlans.sh); then
    exec "$NETLOOM" compare "$@"
fi
printf 'Here, %s: comparing in a throw-away VM with the full kernel of the distribution.\n' "$why" >&2
exec scripts/full-kernel-vm.sh "$NETLOOM" compare "$@"
