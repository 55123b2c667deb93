//! What the process asks of the C library's allocator.
//!
//! A mount that knows many keys holds hundreds of thousands of small pieces for long, made by whichever thread brought
//! them, and a few large tables that grow.

/// Tables of so many bytes have a mapping of their own, which grows in its place.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: i32 = 1 << 20;

/// Keeps small what a mount holds. Call it before there is any thread.
///
/// One arena: what one thread has freed is of use to all, where each of several would keep holes of its own. Large tables
/// are mapped: the allocator takes that back for all of their size once it has seen one freed, and then leaves a hole
/// each time that one grows. Together that is a fifth of what a key takes.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_small() {
    for (option, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)] {
        #[expect(unsafe_code, reason = "the allocator has no other interface")]
        // SAFETY: takes two numbers, and no other thread uses the allocator meanwhile.
        let is_taken = unsafe { libc::mallopt(option, value) } == 1;
        debug_assert!(is_taken, "an option that glibc has had for long");
    }
}

/// Other C libraries have no such options.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_small() {}
