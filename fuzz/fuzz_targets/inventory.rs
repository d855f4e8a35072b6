//! What kernel, libvirt, guests and records say of what there is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netloom::fuzz::inventory(bytes));
