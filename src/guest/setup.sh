#!/bin/sh
# Configures a guest from the files beside this one. Written for POSIX sh and run by both kinds of guest: by the built-in
# image's first process (`built-in`) and by cloud-init on a cloud image (`cloud`). The order is what matters: no packet
# is forwarded before the ruleset stands, and nothing says "ready" before everything served listens.
#
# guest         what this guest is, one fact a line       links      ip -batch: what interfaces there are
# ruleset.nft   nftables ruleset, if any                  addresses  ip -batch: addresses, links up, routes
# dnsmasq.conf  DHCP and DNS for others, if any           routes     ip -batch: routes that need a lease first
home=/etc/netloom
run=/run/netloom
mkdir -p $run

fail() {
	echo "netloom: $*" >&2
	echo "$*" >>$run/failed
}

# facts NAME: the words after NAME on every line that begins with it.
facts() {
	while read -r name words; do
		[ "$name" != "$1" ] || echo "$words"
	done <$home/guest
}

have() { command -v "$1" >/dev/null 2>&1; }

# batch FILE: a failing line does not keep the others from being run.
batch() {
	[ -s "$home/$1" ] || return 0
	ip -force -batch "$home/$1" 2>$run/errors || fail "cannot apply $1: $(cat $run/errors)"
}

# Forwarding is switched on by this function alone, and only behind a ruleset that was accepted whole.
protect() {
	if [ -e $home/ruleset.nft ]; then
		modprobe -a nf_tables nf_conntrack nft_ct nf_nat nft_chain_nat nft_masq nft_reject_inet nft_fib_inet 2>/dev/null
		if ! nft -f $home/ruleset.nft 2>$run/errors; then
			fail "the ruleset was refused, forwarding stays off: $(cat $run/errors)"
			return 1
		fi
	fi
	[ -z "$(facts forwards)" ] || forward
}

forward() {
	echo 1 >/proc/sys/net/ipv4/ip_forward || fail "cannot switch on IPv4 forwarding"
	if [ -d /proc/sys/net/ipv6 ]; then
		echo 1 >/proc/sys/net/ipv6/conf/all/forwarding || fail "cannot switch on IPv6 forwarding"
		echo 1 >/proc/sys/net/ipv6/conf/default/forwarding
	fi
}

# The kernel numbers NICs as it finds them; the seed knows them by MAC. Two passes, since names may be swapped.
rename_nics() {
	for nic in /sys/class/net/*; do
		read -r mac <"$nic/address" || continue
		name=$(facts nic | while read -r wanted its_mac; do [ "$its_mac" != "$mac" ] || echo "$wanted"; done)
		[ -z "$name" ] || [ "$name" = "${nic##*/}" ] || ip link set dev "${nic##*/}" name "new-$name"
	done
	for nic in /sys/class/net/new-*; do
		[ ! -e "$nic" ] || ip link set dev "${nic##*/}" name "${nic##*/new-}"
	done
	for name in $(facts nic | cut -d ' ' -f 1); do
		[ -e "/sys/class/net/$name" ] || fail "there is no NIC $name"
	done
}

# A router ignores router advertisements unless told twice (2).
listen_to_routers() {
	for name in $(facts dynamic | cut -d ' ' -f 1); do
		echo 2 >"/proc/sys/net/ipv6/conf/$name/accept_ra"
	done
}

resolvers() {
	for server in $(facts nameserver); do echo "nameserver $server"; done
}

# What is kept running, one command a line.
services() {
	facts dynamic | while read -r name family metric; do
		[ "$family" != v4 ] || echo "env NETLOOM_METRIC=$metric udhcpc -f -i $name -s /usr/lib/netloom/dhcp -t 8 -T 1 -A 1 -O staticroutes -x hostname:$(hostname)"
	done
	[ ! -e $home/dnsmasq.conf ] || echo "sh $home/setup.sh dnsmasq"
	facts serve | while read -r protocol port; do echo "sh $home/setup.sh answer $protocol $port"; done
}

run_dnsmasq() {
	have dnsmasq || { fail "this image has no dnsmasq, so nobody gets an address from here"; exit 1; }
	exec dnsmasq --keep-in-foreground --conf-file=$home/dnsmasq.conf --pid-file \
		--dhcp-leasefile=$run/leases --log-facility=$run/dnsmasq.log
}

# answer PROTOCOL PORT: every connection or datagram is answered with one line; what the other side says is read to its
# end, for closing with unread data would reset the connection and could take the answer with it.
answer() {
	script=$run/answer-$1-$2
	printf '#!/bin/sh\necho "%s/%s %s/%s"\n' "$(facts lab)" "$(facts guest)" "$1" "$2" >"$script"
	[ "$1" = udp ] || printf 'exec >&-\nexec cat >/dev/null\n' >>"$script"
	chmod 755 "$script"
	case $1 in
	tcp) exec socat "TCP6-LISTEN:$2,fork,reuseaddr,ipv6only=0,backlog=128,max-children=64" "EXEC:$script" ;;
	udp) exec socat "UDP6-RECVFROM:$2,fork,reuseaddr,ipv6only=0" "EXEC:$script" ;;
	esac
}

# serve: all responders at once, where there is Python (every image with cloud-init has it).
serve() {
	! have python3 || exec python3 $home/serve.py
	have socat || { fail "this image has neither python3 nor socat to serve with"; exit 1; }
	facts serve | while read -r protocol port; do sh $home/setup.sh answer "$protocol" "$port" & done
	while :; do sleep 3600; done
}

# Whether everything served listens. State 0A is a listening TCP socket, 07 a UDP socket without a peer.
listening() {
	{
		facts serve
		if grep -q '^dhcp-range=[^:]*$' $home/dnsmasq.conf 2>/dev/null; then echo udp 67; fi
	} | while read -r protocol port; do
		grep -q "$(printf ':%04X' "$port") 0*:0000 0[A7] " "/proc/net/$protocol" "/proc/net/${protocol}6" || exit 1
	done
}

# Waits at most ten seconds for what is served, then leaves the outcome in $run/state: `ready`, or `failed` and why.
settle() {
	tries=0
	until listening 2>/dev/null; do
		tries=$((tries + 1))
		if [ $tries -ge 200 ]; then
			fail "not everything served listens"
			break
		fi
		sleep 0.05
	done
	if [ -e $run/failed ]; then
		{ echo failed; cat $run/failed; } >$run/state.new
	else
		echo ready >$run/state.new
	fi
	mv $run/state.new $run/state
}

# The outcome on the console, in one line that the host looks for: of a guest without an agent it can read nothing else.
announce() {
	agent=
	have qemu-ga || agent=" without agent"
	{
		read -r outcome
		reasons=$(tr '\n' ';')
	} <$run/state
	printf '\nnetloom: %s%s%s\n' "$outcome" "$agent" "${reasons:+: $reasons}" >/dev/ttyS0
}

built_in() {
	hostname "$(facts guest)"
	printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$(hostname)" >/etc/hosts
	rename_nics
	protect
	batch links
	listen_to_routers
	batch addresses
	resolvers >$run/resolv.static
	cat $run/resolv.static >/run/resolv.conf
	services | while read -r command; do
		echo "::respawn:$command >/dev/null 2>&1"
	done >>"$NETLOOM_INITTAB"
}

# On a cloud image names and addresses are cloud-init's work; this adds the rest, as units that outlive a reboot.
cloud() {
	if have systemctl; then
		systemctl daemon-reload
		for unit in /etc/systemd/system/netloom-*.service; do
			systemctl enable --quiet "${unit##*/}"
			systemctl start "${unit##*/}" || fail "unit ${unit##*/} did not start"
		done
		systemctl start --no-block qemu-guest-agent.service 2>/dev/null
		systemctl restart --no-block serial-getty@ttyS0.service 2>/dev/null
	else
		protect
		[ ! -e $home/dnsmasq.conf ] || sh $home/setup.sh dnsmasq &
		[ -z "$(facts serve)" ] || sh $home/setup.sh serve &
		settle
		announce
	fi
}

case $1 in
built-in) built_in ;;
cloud) cloud ;;
protect) protect ;;
dnsmasq) run_dnsmasq ;;
serve) serve ;;
answer) answer "$2" "$3" ;;
settle) settle ;;
announce) announce ;;
*)
	echo "usage: setup.sh built-in|cloud|protect|dnsmasq|serve|answer|settle|announce" >&2
	exit 2
	;;
esac
