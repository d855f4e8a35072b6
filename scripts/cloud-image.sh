#!/bin/bash
# Builds an image of this distribution with cloud-init that boots from its own disk, as the images that distributions
# publish do:
#
#   scripts/cloud-image.sh OUT.qcow2 [SUITE]
#   scripts/cloud-image.sh --without-agent IMAGE.qcow2 OUT.qcow2
#
# The second form makes a copy of such an image in which there is no QEMU guest agent: neither program nor unit.
#
# It stands in for those where they cannot be downloaded, to prove that netloom's seeds configure a stock cloud image.
# Nothing is mounted and no loop device is used: the root file system is made from a directory, the boot loader is put
# onto a FAT volume in a file, and both are joined to a disk with a partition table. Without root, mmdebstrap uses a user
# namespace (it needs ranges in /etc/subuid and `newuidmap`) and fakeroot keeps the files' owners.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
. /etc/os-release
boot_mib=128 root_mib=2048
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "${1:-}" = --without-agent ]; then
	image=${2:?usage: $0 --without-agent IMAGE.qcow2 OUT.qcow2} out=${3:?usage: $0 --without-agent IMAGE.qcow2 OUT.qcow2}
	qemu-img convert -f qcow2 -O raw "$image" "$work/disk.img"
	root="$work/disk.img?offset=$(((1 + boot_mib) * 1024 * 1024))"
	for file in /usr/sbin/qemu-ga /usr/lib/systemd/system/qemu-guest-agent.service /etc/init.d/qemu-guest-agent; do
		# debugfs always ends well, so what counts is what is there before and after
		debugfs -R "stat $file" "$root" 2>/dev/null | grep -q 'Type: regular' || continue
		debugfs -w -R "rm $file" "$root" 2>/dev/null
		removed="${removed:-} $file"
	done
	[[ "${removed:-}" == *qemu-ga* ]] || { echo "$0: $image has no agent where one was looked for" >&2; exit 4; }
	if debugfs -R 'stat /usr/sbin/qemu-ga' "$root" 2>/dev/null | grep -q 'Type: regular'; then exit 4; fi
	qemu-img convert -f raw -O qcow2 "$work/disk.img" "$out.new"
	chmod 644 "$out.new"
	mv "$out.new" "$out"
	echo "made $out, without$removed" >&2
	exit
fi

out=$(realpath -m "${1:?usage: $0 OUT.qcow2 [SUITE]}")
suite=${2:-$VERSION_CODENAME}
mbr=/usr/lib/syslinux/mbr/mbr.bin

fail() { echo "$0: $*" >&2; exit 3; }
if [ "$(id -u)" = 0 ]; then owners=(); else owners=(fakeroot); fi
lacking=()
for tool in mmdebstrap mke2fs mkfs.vfat mcopy syslinux sfdisk qemu-img "${owners[@]}"; do
	command -v "$tool" >/dev/null || lacking+=("$tool")
done
[ -e $mbr ] || lacking+=(mbr.bin)
[ ${#lacking[@]} = 0 ] || fail "missing: ${lacking[*]}; mend: sudo apt-get install --no-install-recommends mmdebstrap" \
	"e2fsprogs dosfstools mtools syslinux syslinux-common fdisk qemu-utils fakeroot uidmap"

kernel_package=linux-image-cloud-amd64 components=main
if [ "$ID" = ubuntu ]; then kernel_package=linux-image-virtual components=main,universe; fi
packages=systemd-sysv,udev,dbus,cloud-init,netplan.io,nftables,qemu-guest-agent,iproute2,iputils-ping,kmod
packages=$packages,initramfs-tools,e2fsprogs,zstd,$kernel_package

mkdir -p "$(dirname "$out")"

echo "installing $ID $suite" >&2
# The initial RAM disk gets drivers for what the disk may be attached to; all others would only make it larger.
mmdebstrap --variant=minbase --components=$components --include="$packages" --aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
	--essential-hook='printf "MODULES=list\nCOMPRESS=zstd\n" >"$1/etc/initramfs-tools/conf.d/netloom"' \
	--essential-hook='printf "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\next4\n" >"$1/etc/initramfs-tools/modules"' \
	--customize-hook='echo "LABEL=root / ext4 defaults 0 1" >"$1/etc/fstab"; echo cloud >"$1/etc/hostname"' \
	--customize-hook=': >"$1/etc/machine-id"' \
	"$suite" "$work/root.tar" >&2

echo "making the disk" >&2
mkdir "$work/root"
export work root_mib
"${owners[@]}" bash -euc '
	tar -C "$work/root" --numeric-owner -xpf "$work/root.tar"
	truncate -s ${root_mib}M "$work/root.img"
	mke2fs -q -t ext4 -L root -d "$work/root" "$work/root.img"'
rm "$work/root.tar"

kernel=$(echo "$work"/root/boot/vmlinuz-*) initrd=$(echo "$work"/root/boot/initrd.img-*)
[ -e "$kernel" ] && [ -e "$initrd" ] || fail "the installed system has no kernel"
cat >"$work/syslinux.cfg" <<CFG
DEFAULT linux
PROMPT 0
LABEL linux
  LINUX vmlinuz
  INITRD initrd
  APPEND root=LABEL=root ro console=ttyS0 quiet mitigations=off
CFG
truncate -s ${boot_mib}M "$work/boot.img"
mkfs.vfat -n BOOT -h 2048 "$work/boot.img" >/dev/null
mcopy -i "$work/boot.img" "$kernel" ::vmlinuz
mcopy -i "$work/boot.img" "$initrd" ::initrd
mcopy -i "$work/boot.img" "$work/syslinux.cfg" ::syslinux.cfg
syslinux --install "$work/boot.img"

disk=$work/disk.img
truncate -s $((1 + boot_mib + root_mib + 1))M "$disk"
sfdisk -q "$disk" <<TABLE
label: dos
start=1MiB, size=${boot_mib}MiB, type=e, bootable
start=$((1 + boot_mib))MiB, size=${root_mib}MiB, type=83
TABLE
dd if=$mbr of="$disk" conv=notrunc status=none
dd if="$work/boot.img" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.img" of="$disk" bs=1M seek=$((1 + boot_mib)) conv=notrunc,sparse status=none
qemu-img convert -f raw -O qcow2 "$disk" "$out.new"
chmod 644 "$out.new"
mv "$out.new" "$out"
echo "made $out" >&2
