//! Member and cluster ids, derived as etcd derives them, so that the same flags
//! give the same ids.

use sha1::{Digest, Sha1};

/// Id of a member of the first hour: from its peer URLs and the cluster's token.
pub fn member(peer_urls: &[String], cluster_token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    first_eight(Sha1::new().chain_update(urls.concat()).chain_update(cluster_token))
}

/// Id of a member that is added later, at this second: or at a later one, if one that is or was a
/// member has its id.
pub fn added(
    peer_urls: &[String],
    cluster_token: &str,
    unix_seconds: u64,
    is_taken: impl Fn(u64) -> bool,
) -> u64 {
    let mut ids = (unix_seconds..).map(|second| member(peer_urls, &format!("{cluster_token}{second}")));
    ids.find(|&id| !is_taken(id)).expect("there is always a later second")
}

/// Id of a cluster that begins with `members`.
pub fn cluster(members: impl IntoIterator<Item = u64>) -> u64 {
    let mut members: Vec<u64> = members.into_iter().collect();
    members.sort_unstable();
    first_eight(members.into_iter().fold(Sha1::new(), |hash, id| hash.chain_update(id.to_be_bytes())))
}

fn first_eight(hash: Sha1) -> u64 {
    let hash = hash.finalize();
    u64::from_be_bytes(hash[..8].try_into().expect("a hash has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_give_the_ids_that_etcd_gives_them() {
        let id = member(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster([id])), "cdf818194e3a8c32");
    }

    #[test]
    fn who_is_added_again_in_the_same_second_is_somebody_else() {
        let urls = ["http://a:1".to_owned()];
        let first = added(&urls, "t", 7, |_| false);
        let again = added(&urls, "t", 7, |id| id == first);
        assert_eq!((first, again), (added(&urls, "t", 7, |_| false), added(&urls, "t", 8, |_| false)));
        assert_ne!(first, again);
    }

    #[test]
    fn order_does_not_matter() {
        let urls = ["http://b:1".to_owned(), "http://a:1".to_owned()];
        let turned = [urls[1].clone(), urls[0].clone()];
        assert_eq!(member(&urls, "t"), member(&turned, "t"));
        assert_eq!(cluster([1, 2]), cluster([2, 1]));
        assert_ne!(member(&urls, "t"), member(&urls, "u"));
    }
}
