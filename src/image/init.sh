#!/bin/sh
# First process of the built-in guest image. Makes the system usable, has the seed's own script configure it, and hands
# over to busybox init, which keeps shell, services and agent running.
export PATH=/usr/bin HOME=/root
say() { echo "netloom: $*" >/dev/console; }

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=755 run /run
: >/run/resolv.conf

# Before any NIC exists, so that each inherits it: addresses are derived from the lab and need no duplicate detection
# (a second of waiting), and only interfaces told to do so listen to routers.
cd /proc/sys/net/ipv6/conf/default && { echo 0 >accept_dad; echo 0 >accept_ra; echo 0 >router_solicitation_delay; }
cd /
modprobe -a virtio_pci virtio_mmio virtio_blk virtio_console virtio_net vfat nls_cp437 nls_ascii 2>/dev/null

tries=0
until seed=$(findfs LABEL=cidata 2>/dev/null) || [ $tries -ge 50 ]; do
	tries=$((tries + 1))
	usleep 100000
done
inittab=/etc/inittab
: >$inittab
if [ -n "$seed" ] && mount -t vfat -o ro "$seed" /mnt; then
	cp -r /mnt/netloom /etc/netloom
	umount /mnt
	NETLOOM_INITTAB=$inittab sh /etc/netloom/setup.sh built-in >/dev/console 2>&1
else
	say "no seed found (a disk labelled cidata): the guest stays unconfigured"
fi
{
	echo 'ttyS0::respawn:-/bin/ash'
	# 3 is a console, of which an agent's port may be one (virtio 1.2, section 5)
	grep -qsx 0x0003 /sys/bus/virtio/devices/*/device && echo '::respawn:/usr/lib/netloom/agent'
	echo '::once:/usr/lib/netloom/power'
	echo '::ctrlaltdel:/bin/reboot'
} >>$inittab
read -r uptime _ </proc/uptime
say "ready after $uptime s"
exec init
