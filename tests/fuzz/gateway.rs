//! JSON as the gateway reads it, of arbitrary bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcfs_server::net::fuzz::gateway(data));
