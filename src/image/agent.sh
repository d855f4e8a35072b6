#!/bin/sh
# Starts the QEMU guest agent once the guest has settled, so that an agent that answers means a guest that is configured
# and serves. A second start (after a crash) need not wait again.
[ -e /run/netloom/state ] || [ ! -e /etc/netloom/setup.sh ] || sh /etc/netloom/setup.sh settle

# The driver learns of its ports, and of their names, by messages that the emulator answers when it comes to it: on a busy
# machine that may be after everything else.
name=org.qemu.guest_agent.0
path=/dev/virtio-ports/$name
until [ -e $path ]; do
	for file in /sys/class/virtio-ports/*/name; do
		{ read -r found <"$file"; } 2>/dev/null && [ "$found" = $name ] || continue
		device=${file%/name}
		mkdir -p ${path%/*}
		ln -sf "../${device##*/}" $path
		continue 2
	done
	usleep 50000
done
exec qemu-ga --method virtio-serial --path $path --statedir /run
