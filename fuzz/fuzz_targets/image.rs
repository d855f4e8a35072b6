//! Headers of disk images, programs, kernels and modules.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netloom::fuzz::image(bytes));
