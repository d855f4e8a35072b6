//! The adapters: the only modules that talk to the kernel, libvirt, nftables and processes.

pub mod domains;
