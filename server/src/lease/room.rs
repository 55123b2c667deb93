//! The room of maps whose entries come and go in masses.

use std::{collections::HashMap, hash::Hash};

/// Room that is not worth to be given back.
const SPARE: usize = 1024;

/// Gives back the room of a map that has but a small part of what it had. Else one that is filled and emptied again
/// and again would grow besides, as it keeps the places of what was removed.
pub(super) fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 4 * map.len() + SPARE {
        map.shrink_to(2 * map.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of 100,000 leases that came and went had twice the room from the third time on.
    #[test]
    fn a_map_filled_and_emptied_again_and_again_does_not_grow() {
        let mut map = HashMap::new();
        let mut room = Vec::new();
        for round in 0..8 {
            for n in 0..100_000 {
                map.insert(n * 8 + round, 0);
            }
            room.push(map.capacity());
            for n in 0..100_000 {
                map.remove(&(n * 8 + round));
                give_back(&mut map);
            }
            assert!(map.capacity() <= 2 * SPARE, "{} places for nothing", map.capacity());
        }
        assert_eq!(room, [room[0]; 8]);
    }
}
