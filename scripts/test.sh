#!/usr/bin/env bash
# Every check of this repository: format, lints, documentation, all tests, and that the tests leave nothing on the host.
#
#   scripts/test.sh            everything (`make test`)
#   scripts/test.sh --list F   runs the tests that file F lists, a line each: BINARY<tab>TEST (used inside the VM)
#
# Tests marked #[ignore = "slow"] run here too, after the others; those marked #[ignore = "full-kernel"] run here where
# the kernel knows VLANs and else inside scripts/full-kernel-vm.sh. "run by NAME" stands on the part of test NAME that runs
# as a process of its own. Any other reason to be ignored is an error: no test is left out. The last line sums up all runs,
# in the words of Rust's own test runner.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} CARGO_MANIFEST_DIR=$PWD INSTA_WORKSPACE_ROOT=$PWD INSTA_UPDATE=no
export FULL_KERNEL_TIMEOUT=${FULL_KERNEL_TIMEOUT:-2400}
TEST_TIMEOUT=${TEST_TIMEOUT:-3600} # seconds for tests that run together; in the foreground, so that CTRL-C ends them too

# The tests of a list, binary by binary; `RAN` gets the lines of those that ended, whatever their verdict.
run_list() {
    local status=0 binary name names
    for binary in $(cut -f 1 "$1" | sort -u); do
        mapfile -t names < <(awk -F '\t' -v b="$binary" '$1 == b { print $2 }' "$1")
        case ${binary##*/} in
        # Comparisons fill the machine with labs by themselves, and measure; a boot is timed among the image's tests. One
        # after another, then, and each by itself, so that a VM that fails takes no more than one test with it.
        compare-* | image-*)
            for name in "${names[@]}"; do run_tests "$binary" 1 "$name" || status=$?; done
            ;;
        *) run_tests "$binary" 2 "${names[@]}" || status=$? ;;
        esac
    done
    return "$status"
}

run_tests() { # BINARY THREADS TEST...
    local status=0 binary=$1 threads=$2
    shift 2
    printf '\n     Running %s (%s ignored ones)\n' "${binary##*/}" $#
    timeout --foreground -k 10 "$TEST_TIMEOUT" "$binary" --ignored --test-threads "$threads" --exact "$@" || status=$?
    # said also for a binary that was ended before it said anything
    if [ "$status" != 0 ]; then printf '\nall of %s (status %d) ... FAILED\n' "${binary##*/}" "$status"; fi
    printf '     Ran %s (%s ignored ones)\n' "${binary##*/}" $#
    if [ -n "${RAN:-}" ]; then
        printf "$binary\\t%s\\n" "$@" >>"$RAN"
        sync "$RAN" # out of the VM that may fail next
    fi
    return "$status"
}

if [ "${1:-}" = --list ]; then
    RAN=$2.ran run_list "$2"
    exit
fi

work=$PWD/target/test-run # below the shared directory, so that the VM sees it
rm -rf "$work"
mkdir -p "$work"
started=$SECONDS
failures=()
log=$work/log
: >"$log"

step() { # NAME COMMAND...
    local name=$1 began=$SECONDS status=0
    shift
    printf '\n==> %s\n' "$name"
    "$@" || status=$?
    if [ "$status" = 0 ]; then
        printf '==> %s: fine, %d s\n' "$name" $((SECONDS - began))
    else
        printf '==> %s: FAILED (status %d), %d s\n' "$name" "$status" $((SECONDS - began))
        failures+=("$name")
    fi
}
# With the seconds since the step began, for whoever wonders afterwards where the time went.
logged() {
    local began=$SECONDS line
    "$@" 2>&1 | tee -a "$log" | while IFS= read -r line || [ -n "$line" ]; do printf '%5d  %s\n' $((SECONDS - began)) "$line"; done
}

build_tests() {
    cargo test --no-run --all-targets --message-format=json-render-diagnostics >"$work/messages" || return
    # benches are built, so that they do not rot, but measuring is no test
    jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable and
                  (.target.kind | index("bench") | not)) | .executable' "$work/messages" |
        sort -u >"$work/binaries"
    [ -s "$work/binaries" ]
}

plain_tests() {
    local status=0 binary
    while read -r binary; do
        printf '\n     Running %s\n' "${binary##*/}"
        timeout --foreground -k 10 "$TEST_TIMEOUT" "$binary" </dev/null >"$work/one" 2>&1 || status=$?
        cat "$work/one"
        # the runner names the reason only here, so this is where the later runs get their tests from
        sed -n 's/^test \(.*\) \.\.\. ignored\(, \(.*\)\)\{0,1\}$/\3\t\1/p' "$work/one" |
            awk -F '\t' -v b="$binary" '{ print $1 "\t" b "\t" $2 }' >>"$work/ignored"
    done <"$work/binaries"
    return "$status"
}

of_reason() { awk -F '\t' -v r="$1" '$1 == r { print $2 "\t" $3 }' "$work/ignored"; }

ignored_tests() {
    local reason=$1
    shift
    of_reason "$reason" >"$work/$reason"
    if [ -s "$work/$reason" ]; then "$@" "$work/$reason"; else printf 'none\n'; fi
}

no_other_reason() {
    local status=0 reason binary name
    while IFS=$'\t' read -r reason binary name; do
        case $reason in
        slow | full-kernel) continue ;;
        'run by '*)
            printf '%s\n' "$name" >>"$work/parts"
            if "$binary" --list --format terse | grep -E "(^|::)${reason#run by }: test\$" >/dev/null; then continue; fi
            ;;
        esac
        printf 'ignored, and nobody runs it: %s (%s)\n' "$name" "$reason"
        status=1
    done <"$work/ignored"
    return "$status"
}

# A VM that failed or stood still (status 125) is no verdict on netloom: what had not ended there runs in another one, and
# the output says so. Three in a row in which no test ends are too many. Anything else that went wrong is final, a test that
# failed before that, too.
in_a_vm() {
    local status=0 vain=0 left=$1.left
    cp "$1" "$left"
    while :; do
        status=0
        : >"$left.ran"
        setpriv --pdeathsig TERM scripts/full-kernel-vm.sh scripts/test.sh --list "$left" 2>&1 | tee "$1.out" || status=$?
        if [ "$status" != 125 ] || grep -q ' \.\.\. FAILED$' "$1.out"; then return "$status"; fi
        vain=$((vain + 1))
        if [ -s "$left.ran" ]; then vain=0; fi
        if [ "$vain" = 3 ]; then return "$status"; fi
        grep -vxFf "$left.ran" "$left" >"$left.new" || return 0
        mv "$left.new" "$left"
        printf '\nThe VM failed. The %d tests that had not ended run in another VM:\n' "$(wc -l <"$left")"
    done
}

# Two VMs side by side, for an emulated one has one processor: the comparisons, which measure, have one to themselves. What
# the other says comes in one piece afterwards.
in_full_kernel() {
    local status=0 other=
    grep -P '/compare-[^/]*\t' "$1" >"$1-compare" || :
    grep -vP '/compare-[^/]*\t' "$1" >"$1-others" || :
    trap 'kill $(jobs -p) 2>/dev/null || :; exit 130' INT TERM
    if [ -s "$1-others" ]; then
        in_a_vm "$1-others" >"$1-said" 2>&1 &
        other=$!
    fi
    if [ -s "$1-compare" ]; then in_a_vm "$1-compare" || status=$?; fi
    if [ -n "$other" ]; then
        wait "$other" || status=$?
        cat "$1-said"
    fi
    return "$status"
}

step 'what building, running and testing needs' scripts/setup.sh --tests
step 'format' cargo fmt --check
step 'lints' cargo clippy --quiet --all-targets -- -D warnings
if command -v cargo-deny >/dev/null; then step 'licences' cargo deny --offline check licenses bans; fi
step 'shell scripts' bash -n scripts/*.sh .ci/run
step 'building the tests' build_tests
: >"$work/ignored"
: >"$work/parts" # of tests, run by these in a process of their own, and counted with them
if [ -s "$work/binaries" ]; then
    scripts/leak-check.sh snapshot "$work/before"
    step 'guest image' target/debug/netloom image build
    step 'tests' logged plain_tests
    step 'documentation tests' logged cargo test --quiet --doc
    step 'slow tests' logged ignored_tests slow run_list
    if why=$(scripts/has-vlans.sh); then
        step 'full-kernel tests, on this kernel' logged ignored_tests full-kernel run_list
    else
        printf '\nHere, %s: the tests that need VLANs run in a throw-away VM with a full kernel.\n' "$why"
        step 'full-kernel tests, in the VM' logged ignored_tests full-kernel in_full_kernel
    fi
    step 'every test has run' no_other_reason
    step 'nothing left on the host' scripts/leak-check.sh compare "$work/before"
fi

# The sums, over all runs. A test that was ignored in one run and ran in another counts once, as what it was there.
read -r passed failed ignored < <(awk '
    match($0, /test result: [A-Za-z]+\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored/) {
        split(substr($0, RSTART, RLENGTH), word, " ")
        passed += word[4]; failed += word[6]; ignored += word[8]
    }
    END { print passed + 0, failed + 0, ignored + 0 }' "$log")
later=$(($(of_reason slow | wc -l) + $(of_reason full-kernel | wc -l)))
late=$(awk '/^     Ran .*ignored ones/ { split($0, part, /[()]/); split(part[2], n, " "); sum += n[1] } END { print sum + 0 }' "$log")
left_out=$((ignored - late - $(wc -l <"$work/parts")))
[ "$late" = "$later" ] || failures+=("$((later - late)) ignored tests were not run")
[ "$left_out" = 0 ] || failures+=("$left_out tests were left out")

printf '\n%d s in all\n' $((SECONDS - started))
grep -E 'full-kernel-vm: the VM |run in another VM:$' "$log" || : # no verdict, but worth knowing
if [ ${#failures[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failures[@]}"
    verdict=FAILED
else
    verdict=ok
fi
printf 'test result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out; finished in %d.00s\n' \
    "$verdict" "$passed" "$failed" "$left_out" $((SECONDS - started))
[ "$verdict" = ok ]
