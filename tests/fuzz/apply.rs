//! Entries of the log, applied, of arbitrary bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcfs_server::apply::fuzz::apply(data));
