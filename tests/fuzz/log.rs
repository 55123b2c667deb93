//! Files of the log, read, of arbitrary bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcfs_server::storage::wal::fuzz::log(data));
