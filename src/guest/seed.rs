//! NoCloud seeds: how a VM is told its configuration.
