#!/bin/sh
# Starts the QEMU guest agent once the guest has settled, so that an agent that answers means a guest that is configured
# and serves. A second start (after a crash) need not wait again.
[ -e /run/netloom/state ] || [ ! -e /etc/netloom/setup.sh ] || sh /etc/netloom/setup.sh settle
exec qemu-ga --method virtio-serial --path /dev/virtio-ports/org.qemu.guest_agent.0 --statedir /run
