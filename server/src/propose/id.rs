//! Ids that a proposer draws, so that applying needs no randomness.

/// A lease's id for a grant that names none: never 0, never negative. Should it
/// be taken, apply refuses the grant and a client tries again.
pub fn lease() -> i64 {
    i64::try_from(rand::random_range(1..=i64::MAX.unsigned_abs())).expect("within an i64 by the range")
}
