#!/usr/bin/env bash
# Measures netloom beside what people would use instead, on this machine, and writes docs/performance.md. Nothing of the
# host is touched: everything runs in namespaces of its own, which go with all that is in them.
#
#   scripts/bench.sh                                    everything (`make bench`)
#   RUNS=9 PARTS=fabric,teardown SIZES=100,500 scripts/bench.sh
#   scripts/bench.sh --machines 1,4,10 --print          arguments go to the program; --help lists them
#
# The alternatives are installed where the distribution has them; one that is missing is named in the tables.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"

RIVALS=(mininet bridge-utils net-tools iputils-ping virtinst vagrant-libvirt python3-libvirt python3-pyroute2)

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E "$@"; fi; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Each by itself, so that one that cannot be had does not keep the others away. None may start a service.
install_rivals() {
    local package policy=/usr/sbin/policy-rc.d mine=no
    command -v apt-get >/dev/null || return 0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        mine=yes
    fi
    for package in "${RIVALS[@]}"; do
        installed "$package" && continue
        printf 'bench: installing %s\n' "$package" >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$package" >/dev/null ||
            printf 'bench: %s cannot be installed here; it is left out\n' "$package" >&2
    done
    [ "$mine" = no ] || as_root rm -f "$policy"
}

scripts/setup.sh
install_rivals

# The program, and the one that measures it, both as they are released.
cargo build --release
program=$(cargo bench --no-run --bench side_by_side --message-format=json-render-diagnostics |
    jq -r 'select(.reason == "compiler-artifact" and .target.name == "side_by_side") | .executable')
NETLOOM_BENCH_COMMIT=$(git describe --always --dirty 2>/dev/null || echo 'no commit')
export NETLOOM_BENCH_COMMIT

case ",${PARTS:-machines}," in
*,machines,*) # VMs boot the built-in image, which cannot be built where there is no way out
    target/release/netloom image build
    ;;
esac

arguments=(--bench --runs "${RUNS:-5}")
[ -z "${PARTS:-}" ] || arguments+=(--parts "${PARTS// /,}")
[ -z "${SIZES:-}" ] || arguments+=(--sizes "${SIZES// /,}")
as_root "$program" "${arguments[@]}" "$@"
if [ "$(id -u)" != 0 ]; then as_root chown -R "$(id -u):$(id -g)" target/bench docs; fi
