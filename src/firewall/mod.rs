//! Firewall flavours: each compiles a guest's policy to what the guest loads.
