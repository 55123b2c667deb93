//! What the process asks of the C library's allocator.
//!
//! The tables of a server are large, and come and go with what it has: leases, watchers, keys. Left to itself the
//! allocator makes room for one of them in its heap once it has seen one freed, and of that room little is ever given
//! back: other things have settled in it.

/// Tables of so many bytes have a mapping of their own, which goes with them. No request is so large by default.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: i32 = 4 << 20;

/// As much as is free at a heap's end is given back. At the 128 KiB that are usual beside a threshold that is set, what
/// each answer of 10,000 keys had taken went back and was asked for anew: a fifth more CPU.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_BYTES_MIN: i32 = 1 << 20;

/// Has memory given back that is not needed any more. Call it before there is any thread.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    for (option, value) in
        [(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN), (libc::M_TRIM_THRESHOLD, GIVEN_BACK_BYTES_MIN)]
    {
        #[expect(unsafe_code, reason = "the allocator has no other interface")]
        // SAFETY: takes two numbers, and no other thread uses the allocator meanwhile.
        let is_taken = unsafe { libc::mallopt(option, value) } == 1;
        debug_assert!(is_taken, "an option that glibc has had for long");
    }
}

/// Other C libraries have no such options.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
