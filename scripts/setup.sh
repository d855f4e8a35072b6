#!/usr/bin/env bash
# Installs what building and running netloom needs on Debian and Ubuntu. Quick when nothing is missing.
#
#   scripts/setup.sh           install what is missing (sudo is used for that step only, and not at all by root)
#   scripts/setup.sh --tests   also what only the tests need
#   scripts/setup.sh --check   only say what is missing; exit 1 when something is
#
# No service is started or enabled: netloom uses a libvirt daemon where one runs already, and needs none.
set -euo pipefail

RUST=1.95

# Kept apart, because both lines of packages may have to come from different suites (see `use_backports`).
VIRTUALISATION=(
    qemu-system-x86             # runs the VM guests
    qemu-utils                  # qemu-img: disks of VM guests
    libvirt-daemon-driver-qemu  # libvirt's QEMU driver, used without a daemon through qemu:///embed
    libvirt-clients             # virsh: another pair of eyes on what netloom made
    libvirt-dev                 # headers to build against
)
TOOLS=(
    gcc libc6-dev make pkg-config               # the linker and what finds libvirt
    ca-certificates curl                        # fetch the Rust toolchain
    iproute2 nftables dnsmasq-base              # look at links, load rulesets, DHCP and DNS of networks
    iptables                                    # what libvirt's own networks need
    iputils-ping iperf3 tcpdump                 # go into the guest image; `compare --speed` and tests use them as well
    busybox-static cpio kmod xz-utils zstd lz4  # build the guest image and the full-kernel VM
    mmdebstrap e2fsprogs dosfstools mtools fdisk syslinux syslinux-common fakeroot uidmap # a cloud image, for the tests
    jq util-linux procps                        # scripts
    strace                                      # tests that watch what netloom asks of the kernel
)

# Older releases have the first within libvirt-daemon, and no passt at all.
VIRTUALISATION_WHERE_KNOWN=(
    libvirt-daemon-driver-network # libvirt's own networks: `netloom compare --against libvirt` measures them
    passt                         # user networking of libvirt's, likewise
)

# For the tests alone; older releases have none.
TESTS_WHERE_KNOWN=(
    incus-base incus-client # Incus's own networks: `netloom compare --against incus` measures them
)
# What these packages would have systemd start at the next boot.
TESTS_UNITS=(incus.socket incus-user.socket incus.service incus-startup.service)

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_of() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

known_of() {
    local package
    for package in "$@"; do
        if apt-cache show "$package" >/dev/null 2>&1; then printf '%s\n' "$package"; fi
    done
}

missing_virtualisation() {
    local known
    mapfile -t known < <(known_of "${VIRTUALISATION_WHERE_KNOWN[@]}")
    missing_of "${VIRTUALISATION[@]}" "${known[@]}"
}

missing_tools() {
    local known=()
    [ "$tests" = no ] || mapfile -t known < <(known_of "${TESTS_WHERE_KNOWN[@]}")
    missing_of "${TOOLS[@]}" "${known[@]}"
}

# Installing a package that is for the tests alone must not leave a daemon behind.
disable_units() {
    command -v systemctl >/dev/null || return 0
    as_root systemctl --quiet disable "${TESTS_UNITS[@]}" 2>/dev/null || :
}

# QEMU's and libvirt's packages depend on each other's exact versions. Where one of them came from the backports suite,
# the others must come from there as well; whether that suite is still among the sources or not.
backports_suite() {
    local versions
    versions=$(dpkg-query -W -f '${db:Status-Status} ${Version}\n' qemu-utils qemu-system-common libvirt0 2>/dev/null || :)
    if grep -q '^installed .*~bpo' <<<"$versions"; then
        (. /etc/os-release && printf '%s-backports' "$VERSION_CODENAME")
    fi
}

# Adds the suite, from the mirror and with the key that the sources already name for the release itself.
use_backports() {
    local suite=$1 release=${1%-backports} mirror key
    if grep -rhsqE "(^|[[:space:]])$suite([[:space:]]|\$)" /etc/apt/sources.list /etc/apt/sources.list.d/; then return; fi
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 2>/dev/null | awk -v r="$release" '$2 == r { print $1; exit }')
    [ -n "$mirror" ] || mirror=http://deb.debian.org/debian
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding the suite $suite of $mirror, since qemu-utils was installed from it"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suite" "$key" |
        as_root tee /etc/apt/sources.list.d/netloom-backports.sources >/dev/null
}

# Debian starts services as it installs them. This file, which packages ask first, says no; an existing one is kept.
install_packages() {
    as_root sh -c '
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >"$policy"
            chmod 755 "$policy"
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >/dev/null
    ' install "$@"
}

packages() {
    local virtualisation tools suite
    # A machine that has never asked for lists knows of no package.
    if [ "$tests$check" = yesno ] && ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
        as_root apt-get update -qq -o DPkg::Lock::Timeout=300 >&2
    fi
    mapfile -t virtualisation < <(missing_virtualisation)
    mapfile -t tools < <(missing_tools)
    [ $((${#virtualisation[@]} + ${#tools[@]})) -gt 0 ] || return 0
    say "missing packages: ${virtualisation[*]} ${tools[*]}"
    [ "$check" = no ] || return 1
    suite=$(backports_suite)
    [ -z "$suite" ] || use_backports "$suite"
    as_root apt-get update -qq -o DPkg::Lock::Timeout=300 >&2
    mapfile -t virtualisation < <(missing_virtualisation)
    mapfile -t tools < <(missing_tools)
    [ ${#virtualisation[@]} = 0 ] || install_packages ${suite:+-t "$suite"} "${virtualisation[@]}"
    [ ${#tools[@]} = 0 ] || install_packages "${tools[@]}"
    case " ${tools[*]} " in *' incus-base '*) disable_units ;; esac
    say "packages installed"
}

rust() {
    export PATH="$PATH:$HOME/.cargo/bin"
    local have
    have=$(cargo --version 2>/dev/null | awk '{ print $2 }') || have=
    if [ -n "$have" ] && printf '%s\n%s\n' "$RUST" "$have" | sort -VC; then return 0; fi
    say "Rust ${have:-is missing}; $RUST or newer is needed"
    [ "$check" = no ] || return 1
    if command -v rustup >/dev/null; then
        say "installing the Rust toolchain $RUST with rustup"
        rustup toolchain install "$RUST" --profile minimal --component clippy,rustfmt >&2
        say "to use it here: rustup override set $RUST"
    else
        say "installing rustup and the stable toolchain into $HOME/.cargo (https://rustup.rs)"
        curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs |
            sh -s -- -y --quiet --no-modify-path --profile minimal --component clippy,rustfmt >&2
    fi
}

check=no
tests=no
case ${1:-} in
'') ;;
--tests) tests=yes ;;
--check) check=yes ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
if ! command -v apt-get >/dev/null; then
    say "this script knows Debian and Ubuntu; on other systems \`netloom doctor\` names the packages"
    exit 3
fi
status=0
packages || status=$?
rust || status=$?
exit "$status"
