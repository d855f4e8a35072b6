//! Configuration texts of dnsmasq.
