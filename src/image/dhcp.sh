#!/bin/sh
# Called by udhcpc with the event as its argument and the lease in variables.
# The metric keeps default routes of several NICs apart: the first NIC wins.
metric=${NETLOOM_METRIC:-100}
resolv() { cat /run/netloom/resolv.* >/run/resolv.conf 2>/dev/null; }
case $1 in
deconfig)
	ip -4 addr flush dev "$interface" scope global
	rm -f "/run/netloom/resolv.$interface"
	resolv
	;;
bound | renew)
	[ "$1" = bound ] && ip -4 addr flush dev "$interface" scope global
	ip -4 addr replace "$ip/$mask" ${broadcast:+broadcast "$broadcast"} dev "$interface"
	for gateway in $router; do
		ip -4 route replace default via "$gateway" dev "$interface" onlink metric "$metric"
		break
	done
	# Classless static routes (option 121): pairs of destination and gateway.
	set -- $staticroutes
	while [ $# -ge 2 ]; do
		ip -4 route replace "$1" via "$2" dev "$interface" onlink metric "$metric"
		shift 2
	done
	{
		[ -z "$domain" ] || echo "search $domain"
		for server in $dns; do echo "nameserver $server"; done
	} >"/run/netloom/resolv.$interface"
	resolv
	[ ! -s /etc/netloom/routes ] || ip -force -batch /etc/netloom/routes 2>/dev/null
	;;
esac
exit 0
