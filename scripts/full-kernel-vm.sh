#!/usr/bin/env bash
# Runs a command as root in a throw-away VM that has the distribution's full kernel.
#
#   scripts/full-kernel-vm.sh COMMAND [ARGUMENT...]
#
# For machines whose own kernel lacks VLANs, or when nothing may touch this host. The VM sees this machine's root file
# system; what it writes there vanishes with it. Only the current directory is shared for good, at the same path.
# Output, exit status and a part of the environment (see `passed_variables`) go through; standard input does not.
# There is no network to the outside. The kernel is a distribution package, unpacked into a cache: nothing is installed.
#
#   FULL_KERNEL_MEM      memory of the VM in MiB (3000)
#   FULL_KERNEL_TIMEOUT  seconds after which the VM is ended (3600)
#   FULL_KERNEL_STILL    seconds without a sign of life from the VM's kernel after which it is ended (120)
#   FULL_KERNEL_CACHE    where the kernel is kept ($XDG_CACHE_HOME/netloom/full-kernel)
#
# Exit: the command's own status; 124 out of time; 125 the VM failed or stood still (its console follows); 130 interrupted.
set -euo pipefail

CACHE=${FULL_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netloom/full-kernel}
MEMORY=${FULL_KERNEL_MEM:-3000}
TIMEOUT=${FULL_KERNEL_TIMEOUT:-3600}
STILL=${FULL_KERNEL_STILL:-120}
HERE=$(pwd -P)
SELF=$(readlink -f "$0")
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'full-kernel-vm: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 125
}

if [ $# = 0 ]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$SELF" >&2
    exit 2
fi

# ---- the kernel: fetched once -----------------------------------------------------------------------------------

need_programs() {
    local program lost=()
    for program in qemu-system-x86_64 busybox cpio modprobe depmod dpkg-deb apt-get flock pgrep setpriv timeout; do
        command -v "$program" >/dev/null || lost+=("$program")
    done
    [ ${#lost[@]} = 0 ] || die "missing: ${lost[*]}; scripts/setup.sh installs them"
}

# Debian's and Ubuntu's name for "the present kernel"; each depends on the one that is meant.
kernel_packages() {
    local meta image version
    for meta in linux-image-amd64 linux-image-generic; do
        image=$(apt-cache "$@" depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [ -n "$image" ] || continue
        printf '%s\n' "$image"
        version=${image#linux-image-}
        for meta in "linux-modules-$version" "linux-modules-extra-$version"; do # Ubuntu keeps modules apart
            if apt-cache "$@" show "$meta" >/dev/null 2>&1; then printf '%s\n' "$meta"; fi
        done
        return 0
    done
    return 1
}

# With the package lists that the system has; when they are absent or out of date, with fresh ones of our own.
download_kernel() {
    local names options=(-o APT::Sandbox::User=root) # the default user may not write here; root only
    [ "$(id -u)" = 0 ] || options=()
    if names=$(kernel_packages) && apt-get "${options[@]}" download -qq $names >&2; then return 0; fi
    say "fetching package lists"
    mkdir -p lists/partial
    options+=(-o "Dir::State::Lists=$PWD/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
    apt-get "${options[@]}" update -qq >&2
    names=$(kernel_packages "${options[@]}") || die "no kernel package in the package lists"
    apt-get "${options[@]}" download -qq $names >&2
}

number_at() { # FILE OFFSET BYTES: a little-endian number
    od -An -v "-tu$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# A bzImage unpacks itself, which takes seconds under emulation. QEMU boots the ELF file inside as well, so take that out:
# the boot protocol's header says where it is (kernel documentation, x86/boot: setup_sects, payload_offset and _length).
unpack_vmlinux() { # BZIMAGE OUT
    local sectors start length magic
    sectors=$(number_at "$1" $((0x1f1)) 1)
    start=$(((sectors + 1) * 512 + $(number_at "$1" $((0x248)) 4)))
    length=$(number_at "$1" $((0x24c)) 4)
    magic=$(od -An -tx1 -j "$start" -N 4 "$1" | tr -d ' ')
    # the last four bytes are the unpacked size, which the decompressors do not know
    payload() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$2" count=$(($3 - 4)) status=none; }
    case $magic in
    fd377a58) payload "$1" "$start" "$length" | xz -dc >"$2" ;;
    28b52ffd) payload "$1" "$start" "$length" | zstd -dcq >"$2" ;;
    02214c18) payload "$1" "$start" "$length" | lz4 -dcq >"$2" ;;
    1f8b*) payload "$1" "$start" "$length" | gzip -dc >"$2" ;;
    *) return 1 ;;
    esac
    [ "$(od -An -tx1 -N 4 "$2" | tr -d ' ')" = 7f454c46 ]
}

fetch_kernel() {
    [ ! -e "$CACHE/kernel/vmlinux" ] || return 0
    say "fetching the distribution's kernel (once, into $CACHE)"
    local new=$CACHE/new version package
    rm -rf "$new" "$CACHE/kernel"
    mkdir -p "$new/root"
    chmod 755 "$new"
    (cd "$new" && download_kernel) || die "cannot download a kernel package"
    for package in "$new"/*.deb; do dpkg-deb -x "$package" "$new/root"; done
    # some distributions ship /usr/lib/modules and some /lib/modules; make both names right for every kmod
    if [ -d "$new/root/lib/modules" ]; then
        mkdir -p "$new/root/usr"
        [ -e "$new/root/usr/lib" ] || ln -s ../lib "$new/root/usr/lib"
        [ -e "$new/root/usr/lib/modules" ] || ln -s ../../lib/modules "$new/root/usr/lib/modules"
    else
        ln -s usr/lib "$new/root/lib"
    fi
    version=$(ls "$new/root/lib/modules")
    depmod -b "$new/root" "$version"
    unpack_vmlinux "$new/root/boot/vmlinuz-$version" "$new/vmlinux" || cp "$new/root/boot/vmlinuz-$version" "$new/vmlinux"
    printf '%s\n' "$version" >"$new/version"
    rm -rf "$new"/*.deb "$new/lists" "$new/root/boot" "$new/root/usr/share"
    mv "$new" "$CACHE/kernel"
}

# ---- the first programs in the VM -------------------------------------------------------------------------------

# Process 1 until the root file system stands.
print_init() {
    cat <<'INIT'
#!/busybox sh
/busybox mkdir -p /bin /proc /sys /dev /lower /ram /new
/busybox --install -s /bin
export PATH=/bin
lost() { echo "full-kernel-vm: $*" >/dev/console; reboot -f; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module" || lost "cannot load $module"; done
given() { cat "/sys/firmware/qemu_fw_cfg/by_name/opt/org.netloom/$1/raw"; }
share=$(given share) && modules=$(given modules) || lost "cannot read what to do"
nine=trans=virtio,version=9p2000.L,msize=512000

# this machine's files, and above them the memory that takes every write
mount -t 9p -o "$nine,ro,cache=loose" root /lower || lost "cannot mount the root file system"
mount -t tmpfs -o size=75%,mode=755 ram /ram
mkdir /ram/upper /ram/work
mount -t overlay -o lowerdir=/lower,upperdir=/ram/upper,workdir=/ram/work overlay /new || lost "cannot overlay it"

cd /new
mkdir -p proc sys dev run lib/modules "./$share"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm dev/net
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -sf "${link#*:}" "dev/${link%%:*}"; done
[ -e dev/net/tun ] || mknod dev/net/tun c 10 200
chmod 666 dev/net/tun
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mkdir -p run/lock run/full-kernel
mount -t 9p -o "$nine,cache=mmap" share "./$share" || lost "cannot mount $share"
mount --bind "/lower/$modules" lib/modules || lost "cannot show the kernel's modules"
ip link set lo up
hostname full-kernel

cp /busybox /second run/full-kernel/
given job >run/full-kernel/job
umount /proc /sys
exec switch_root -c /dev/console /new /run/full-kernel/busybox sh /run/full-kernel/second
INIT
}

# Process 1 from then on. The shell's `wait` reaps whatever is orphaned meanwhile, at once.
print_second() {
    cat <<'SECOND'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name" && eval "$name=/dev/${port##*/}"
done
exec 3>"$out" 4>"$err" 5>"$status"
# The sign of life: whoever waits outside cannot tell a kernel that hangs (emulated hardware virtualisation can make one
# hang) from one that works.
while echo; do /run/full-kernel/busybox sleep 5; done >"$beat" 3>&- 4>&- 5>&- &
# Hardware virtualisation inside: QEMU emulates AMD's, a real CPU has either. By its path, else busybox takes its own
# modprobe, which cannot read compressed modules.
if grep -qw svm /proc/cpuinfo; then /sbin/modprobe -q kvm_amd; fi
if grep -qw vmx /proc/cpuinfo; then /sbin/modprobe -q kvm_intel; fi
[ ! -e /dev/kvm ] || chmod 666 /dev/kvm
setsid /bin/bash /run/full-kernel/job </dev/null >&3 2>&4 3>&- 4>&- 5>&- &
wait $!
echo "$?" >&5
sync
# a port can be written to again once QEMU has taken what was written before; no output may be lost by the reset
perl -e 'for my $fd (3, 4, 5) { my $set = ""; vec($set, $fd, 1) = 1; select(undef, $set, undef, 30) }' || sleep 1
/run/full-kernel/busybox reboot -f
SECOND
}

build_initrd() { # OUT
    local tree module file number=10 version
    version=$(cat "$CACHE/kernel/version")
    tree=$(mktemp -d "$CACHE/initrd.XXXXXX")
    mkdir "$tree/modules"
    cp "$(command -v busybox)" "$tree/busybox"
    if "$tree/busybox" --list | grep -qx switch_root; then :; else die "this busybox is too small; install busybox-static"; fi
    if ldd "$tree/busybox" >/dev/null 2>&1; then die "busybox is not static; install busybox-static"; fi
    while read -r file; do
        module=$tree/modules/$number-${file##*/}
        case $file in
        *.xz) xz -dc "$file" >"${module%.xz}" ;;
        *.zst) zstd -dcq "$file" >"${module%.zst}" ;;
        *) cp "$file" "$module" ;;
        esac
        number=$((number + 1))
    done < <(
        for module in virtio_pci virtio_console 9pnet_virtio 9p overlay qemu_fw_cfg; do
            modprobe -d "$CACHE/kernel/root" -S "$version" --show-depends "$module"
        done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
    )
    print_init >"$tree/init"
    print_second >"$tree/second"
    chmod 755 "$tree/init"
    (cd "$tree" && find . | cpio -o -H newc --quiet -R 0:0) >"$1.new"
    rm -rf "$tree"
    mv "$1.new" "$1"
}

prepare() {
    need_programs
    mkdir -p "$CACHE"
    exec {lock}>"$CACHE/lock"
    flock "$lock"
    fetch_kernel
    INITRD=$CACHE/initrd-$(cat "$SELF" "$CACHE/kernel/version" | cksum | tr ' ' -)
    if [ ! -e "$INITRD" ]; then
        rm -rf "$CACHE"/initrd*
        build_initrd "$INITRD"
    fi
    exec {lock}>&-
}

# ---- one run ----------------------------------------------------------------------------------------------------

passed_variables() {
    compgen -e | grep -E '^(CARGO.*|RUST.*|NETLOOM_.*|INSTA_.*|CI|CLICOLOR.*|NO_COLOR|TERM|LANG|LC_.*|TZ|HOME|PATH)$' || :
}

print_job() {
    local name
    for name in $(passed_variables); do printf 'export %s=%q\n' "$name" "${!name}"; done
    printf 'export NETLOOM_FULL_KERNEL=1\ncd %q || exit 125\nexec' "$HERE"
    printf ' %q' "$@"
    printf '\n'
}

comma() { printf '%s' "${1//,/,,}"; } # QEMU's options end at a comma; a doubled one is meant literally

prepare

# Descriptors of files that have no name any more: however this ends, nothing is left on the disk.
scratch=$(mktemp -d)
exec {job_in}>"$scratch/job" {console_in}>"$scratch/console" {status_in}>"$scratch/status" {log_in}>"$scratch/log"
exec {beat_in}>"$scratch/beat" {still_in}>"$scratch/still"
exec {job}<"$scratch/job" {console}<"$scratch/console" {status}<"$scratch/status" {log}<"$scratch/log"
exec {still}<"$scratch/still"
rm -rf "$scratch"
print_job "$@" >&"$job_in"
exec {job_in}>&-
exec {out}> >(exec cat)
reader_out=$!
exec {err}> >(exec cat >&2)
reader_err=$!

if grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then
    machine=(-accel kvm -cpu host -smp "$(nproc)")
    speed=
else
    # more than one emulated processor is slower, and five-level page tables are
    machine=(-accel tcg,thread=single,tb-size=512 -cpu max,la57=off -smp 1)
    speed='mitigations=off tsc=reliable no_timer_check cryptomgr.notests nokaslr'
fi
if [ "$(id -u)" = 0 ]; then owners=passthrough; else owners=none; fi
share() { # TAG PATH OPTION
    printf '%s\n' -fsdev "local,id=$1,path=$(comma "$2"),security_model=$owners,multidevs=remap$3" \
        -device "virtio-9p-pci,fsdev=$1,mount_tag=$1"
}
port() { # NAME DESCRIPTOR; `append`, because truncating, which QEMU does else, fails on a pipe
    printf '%s\n' -add-fd "fd=$2,set=$2" -chardev "file,id=$1,path=/dev/fdset/$2,append=on" -device "virtserialport,chardev=$1,name=$1"
}
mapfile -t devices < <(
    share root / ,readonly=on
    share share "$HERE" ''
    port out "$out"
    port err "$err"
    port status "$status_in"
    port beat "$beat_in"
)

ended=
end_vm() {
    ended=1
    kill "$vm" 2>/dev/null || :
}
# the signal at the parent's death ends the VM even if this script is killed the hard way
setpriv --pdeathsig TERM timeout -k 5 "$TIMEOUT" qemu-system-x86_64 -name netloom-full-kernel,debug-threads=on \
    -M q35 "${machine[@]}" -m "$MEMORY" -nodefaults -no-user-config -display none -no-reboot -nic none \
    -kernel "$CACHE/kernel/vmlinux" -initrd "$INITRD" \
    -append "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on audit=0 net.ifnames=0 $speed" \
    -add-fd "fd=$console_in,set=$console_in" -chardev "file,id=console,path=/dev/fdset/$console_in,append=on" -serial chardev:console \
    -fw_cfg "name=opt/org.netloom/job,file=/proc/self/fd/$job" \
    -fw_cfg "name=opt/org.netloom/share,string=$(comma "$HERE")" \
    -fw_cfg "name=opt/org.netloom/modules,string=$(comma "$(readlink -f "$CACHE/kernel/root/lib/modules")")" \
    -device virtio-serial-pci "${devices[@]}" </dev/null >&"$log_in" 2>&1 &
vm=$!
trap end_vm INT TERM HUP
exec {out}>&- {err}>&-

# What QEMU's threads do: name, state, and for how long they have run as programs and as the kernel, in ticks (proc(5)).
print_threads() {
    local stat qemu
    qemu=$(pgrep -P "$vm") || echo "QEMU is gone"
    for stat in /proc/"$qemu"/task/*/stat; do
        sed -E 's/^[0-9]+ \((.*)\) (.)( [-0-9]+){10} ([0-9]+) ([0-9]+) .*/  \1: \2 \4 \5/' "$stat" 2>/dev/null || :
    done
}

# Ends a VM that has stood still; the file `still` tells it then.
watch_beat() {
    local seen=0 size silent=0 never
    exec {never}<> <(:) # to wait without a process that would outlive this one
    while kill -0 "$vm" 2>/dev/null; do
        read -r -t 5 <&"$never" || :
        size=$(stat -L -c %s "/proc/self/fd/$beat_in")
        # counted, not by the clock: a computer that slept has not waited for its VM
        if [ "$size" != "$seen" ]; then seen=$size silent=0; else silent=$((silent + 5)); fi
        [ "$silent" -ge "$STILL" ] || continue
        {
            print_threads
            read -r -t 2 <&"$never" || :
            echo "and 2 s later:"
            print_threads
        } >&"$still_in"
        kill "$vm" 2>/dev/null || :
        return
    done
}
watch_beat </dev/null >/dev/null 2>&1 &
watcher=$!
exec {beat_in}>&-
code=0
while :; do
    code=0
    wait "$vm" || code=$?
    kill -0 "$vm" 2>/dev/null || break # a trapped signal ends `wait` early
done
wait "$reader_out" "$reader_err" 2>/dev/null || :

kill "$watcher" 2>/dev/null || :
answer=$(cat <&"$status")
[ -z "$ended" ] || exit 130
# First, for a QEMU that does not end when told to ends like one that is out of time.
last=$(cat <&"$still")
if [ -n "$last" ]; then
    tail -n 40 <&"$console" >&2
    say "QEMU's threads at the end:"
    printf '%s\n' "$last" >&2
    die "the VM stood still for $STILL s, and was ended; its console and QEMU's threads are above"
fi
[ "$code" != 124 ] && [ "$code" != 137 ] || {
    say "ended after $TIMEOUT s"
    exit 124
}
case $answer in
'' | *[!0-9]*)
    cat <&"$log" >&2
    tail -n 40 <&"$console" >&2
    die "the VM failed (QEMU's exit status $code); its messages are above"
    ;;
esac
exit "$answer"
