//! libvirt, in a process of its own.
