//! A lab's file, as text, through to the texts that are handed to other programs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netloom::fuzz::front_end(bytes));
