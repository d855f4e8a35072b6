//! The DHCP client's hook: puts a lease on an interface.
