#!/usr/bin/env bash
# Fuzzes everything that reads what others wrote, for some seconds each, within 1 GiB of memory.
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]     front_end, inventory and image by default
#
# What is found lies in fuzz/artifacts, and is a bug: a panic, more memory, or (as a slow unit) more than a second. New inputs
# are collected in fuzz/work; what is committed in fuzz/corpus was made smaller from there (-set_cover_merge=1).
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
seconds=${1:-600}
shift || :
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(front_end inventory image)

if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo 'fuzz: needs a nightly compiler (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz)' >&2
    exit 3
fi
for target in "${targets[@]}"; do
    mkdir -p "fuzz/work/$target"
    # netloom has no unsafe code but a few system calls, which no target makes: without a sanitizer it is four times as fast.
    cargo +nightly fuzz run --sanitizer none "$target" "fuzz/work/$target" "fuzz/corpus/$target" -- \
        -dict="fuzz/$target.dict" -max_total_time="$seconds" -max_len=8192 \
        -rss_limit_mb=1024 -timeout=10 -report_slow_units=1 -print_final_stats=1
done
