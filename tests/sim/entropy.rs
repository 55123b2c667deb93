//! All randomness of a thread from one seed.
//!
//! Every draw of this process begins at the system's `getrandom`: the keys of the
//! standard library's hash maps, tokio's choice among ready branches, the `rand`
//! crate's generators, and with it openraft's election timeouts. So that function
//! is defined here, and the linker has all of them call it. On a thread that was
//! [seeded](seed) it gives numbers from the seed, anywhere else the system's own.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread draws from `seed`. What it drew before it has drawn:
/// so this comes first in a new thread.
pub(crate) fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// The next eight bytes of a seeded thread (SplitMix64).
fn next() -> Option<u64> {
    let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

/// In place of the C library's function of this name.
///
/// # Safety
///
/// As there: `buffer` is valid for `length` bytes.
#[allow(unsafe_code, reason = "its callers know it by its C name alone")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if STATE.get().is_none() {
        // SAFETY: the caller's promise, passed on.
        let drawn = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return drawn as isize;
    }
    let mut filled = 0;
    while filled < length {
        let bytes = next().expect("the thread is seeded").to_le_bytes();
        let part = bytes.len().min(length - filled);
        // SAFETY: `filled + part <= length`, for which the caller vouches.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.add(filled), part) };
        filled += part;
    }
    length as isize
}

#[test]
fn everything_random_follows_from_the_seed() {
    let drawn = |number| {
        let draw = move || {
            seed(number);
            let order: Vec<u32> = (0..20).collect::<std::collections::HashSet<u32>>().into_iter().collect();
            (order, rand::random::<u64>())
        };
        std::thread::spawn(draw).join().expect("no panic")
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
