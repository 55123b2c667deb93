//! The servers of one `up`: how many, and what must be the same at each start.
//!
//! One server keeps its data in the data directory itself. Several have a
//! directory each below it, and beside them a file with what founded the
//! cluster: its token and the addresses that its members know each other by.
//! Clients' ports are chosen anew at each start; these are for good.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use super::port;
use crate::error::CliError;

/// What founded the cluster.
const RECORD: &str = "nodes";
/// What a server makes in its data directory.
const OF_A_SERVER: &str = "member";

/// Below what the system gives to clients, above what most services have.
const PEER_PORTS: Range<u16> = 10_000..32_000;
const TRIES: usize = 1000;

/// The servers of an `up`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    /// Several, or none where one serves alone.
    members: Vec<Member>,
    token: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    peer: SocketAddr,
}

/// One server of an `up`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// In messages and for the log.
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    /// Among several.
    pub(super) membership: Option<Membership>,
}

/// What a server must be told of the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) peer: SocketAddr,
    pub(super) initial_cluster: String,
    pub(super) token: String,
}

impl Nodes {
    /// Those that a data directory, taken by us, has; in a new one as many as asked for.
    pub(super) fn of(data_dir: &Path, asked: Option<u8>) -> Result<Self, CliError> {
        let there = Self::recorded(data_dir)?;
        if let (Some(there), Some(asked)) = (&there, asked)
            && there.count() != usize::from(asked)
        {
            let nodes = |count| if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            return Err(CliError::failed(format!(
                "{} is of {}, not of {}",
                data_dir.display(),
                nodes(there.count()),
                nodes(usize::from(asked)),
            ))
            .hint("leave --nodes out to go on with what is there, or name another directory"));
        }
        match there {
            Some(there) => Ok(there),
            None if asked.unwrap_or(1) == 1 => Ok(Self::one()),
            None => {
                let founded = Self::found(asked.unwrap_or(1))?;
                founded.record(data_dir).map_err(|error| failed(&data_dir.join(RECORD), &error))?;
                Ok(founded)
            }
        }
    }

    fn one() -> Self {
        Self { members: Vec::new(), token: String::new() }
    }

    /// What an earlier start left.
    fn recorded(data_dir: &Path) -> Result<Option<Self>, CliError> {
        let path = data_dir.join(RECORD);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                CliError::failed(format!("{} can't be understood", path.display())).hint(
                    "it was not written by `etcfs up`, or was changed since; bring it back from a backup",
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(data_dir.join(OF_A_SERVER).exists().then(Self::one))
            }
            Err(error) => Err(failed(&path, &error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let token = lines.next()?.strip_prefix("token ")?.to_owned();
        let member = |line: &str| {
            let (name, peer) = line.split_once(' ')?;
            Some(Member { name: name.to_owned(), peer: peer.parse().ok()? })
        };
        let members: Vec<Member> = lines.map(member).collect::<Option<_>>()?;
        (members.len() > 1).then_some(Self { members, token })
    }

    fn found(count: u8) -> Result<Self, CliError> {
        let mut members: Vec<Member> = Vec::new();
        for nth in 1..=count {
            let free = |_| {
                let port = rand::random_range(PEER_PORTS);
                let is_ours = members.iter().any(|member| member.peer.port() == port);
                port::free(port).ok().filter(|_| !is_ours)
            };
            let peer = (0..TRIES).find_map(free).ok_or_else(|| {
                CliError::failed("no free port was found for the nodes to talk to each other")
            })?;
            members.push(Member { name: format!("n{nth}"), peer });
        }
        Ok(Self { members, token: format!("{:032x}", rand::random::<u128>()) })
    }

    /// Whole or not at all, and on disk before any server founds upon it.
    fn record(&self, data_dir: &Path) -> io::Result<()> {
        let mut text = format!("token {}\n", self.token);
        for member in &self.members {
            text.push_str(&format!("{} {}\n", member.name, member.peer));
        }
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(data_dir.join(RECORD))?;
        File::open(data_dir)?.sync_all()
    }

    pub(super) fn count(&self) -> usize {
        self.members.len().max(1)
    }

    /// Refuses to start where somebody else has an address that members know each other by.
    pub(super) fn check_peers(&self) -> Result<(), CliError> {
        for Member { name, peer } in &self.members {
            port::free(peer.port()).map_err(|error| {
                CliError::failed(format!("{name} can't be served to the other nodes at {peer}: {error}"))
                    .hint("that address was chosen when the cluster was made, and stays: end what uses it")
            })?;
        }
        Ok(())
    }

    /// Each server, with its place below `data_dir`.
    pub(super) fn list(&self, data_dir: &Path) -> Vec<Node> {
        if self.members.is_empty() {
            let name = "server".to_owned();
            return vec![Node { name, data_dir: data_dir.to_path_buf(), membership: None }];
        }
        let named: Vec<_> =
            self.members.iter().map(|Member { name, peer }| format!("{name}=http://{peer}")).collect();
        let initial_cluster = named.join(",");
        let node = |Member { name, peer }: &Member| Node {
            name: name.clone(),
            data_dir: data_dir.join(name),
            membership: Some(Membership {
                peer: *peer,
                initial_cluster: initial_cluster.clone(),
                token: self.token.clone(),
            }),
        };
        self.members.iter().map(node).collect()
    }
}

/// `--nodes`: as many as survive the loss of fewer than half of them.
pub(super) fn count(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5 | 7)) => Ok(count),
        Ok(2 | 4 | 6) => {
            Err("an even number bears no more losses than one node less: 1, 3, 5 or 7".to_owned())
        }
        _ => Err("1, 3, 5 or 7".to_owned()),
    }
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_the_same_at_each_start_and_never_of_another_size() {
        let dir = tempfile::tempdir().unwrap();
        let founded = Nodes::of(dir.path(), Some(3)).unwrap();
        assert_eq!(founded.count(), 3);
        for asked in [None, Some(3)] {
            assert_eq!(Nodes::of(dir.path(), asked).unwrap(), founded);
        }
        for asked in [1, 5] {
            let refused = Nodes::of(dir.path(), Some(asked)).unwrap_err();
            assert!(refused.message().contains("is of 3 nodes, not of"), "{}", refused.message());
        }
        let nodes = founded.list(dir.path());
        let peers: std::collections::BTreeSet<_> =
            nodes.iter().map(|node| node.membership.as_ref().unwrap().peer).collect();
        assert_eq!(peers.len(), 3, "each has an address of its own");
        assert_eq!(nodes[2].data_dir, dir.path().join("n3"));
    }

    #[test]
    fn one_node_needs_no_record_and_stays_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Nodes::of(dir.path(), None).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::create_dir(dir.path().join(OF_A_SERVER)).unwrap();
        let refused = Nodes::of(dir.path(), Some(3)).unwrap_err();
        assert!(refused.message().contains("is of 1 node, not of 3 nodes"), "{}", refused.message());
        assert_eq!(Nodes::of(dir.path(), Some(1)).unwrap().list(dir.path())[0].data_dir, dir.path());
    }

    #[test]
    fn a_record_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "token x\n", "token x\nn1 127.0.0.1:1\n", "token x\nn1 127.0.0.1:1\nn2 nowhere\n"] {
            fs::write(dir.path().join(RECORD), text).unwrap();
            let refused = Nodes::of(dir.path(), None).unwrap_err();
            assert!(refused.message().contains("can't be understood"), "{text:?}");
        }
    }

    #[test]
    fn an_address_that_somebody_took_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = Nodes::of(dir.path(), Some(3)).unwrap();
        nodes.check_peers().unwrap();
        let taken = nodes.members[1].peer;
        let _held = std::net::TcpListener::bind(taken).unwrap();
        let refused = nodes.check_peers().unwrap_err();
        assert!(refused.message().contains(&format!("n2 can't be served to the other nodes at {taken}")));
    }

    #[test]
    fn only_odd_numbers_up_to_seven_make_sense() {
        assert_eq!(["1", "3", "5", "7"].map(count), [Ok(1), Ok(3), Ok(5), Ok(7)]);
        for refused in ["0", "2", "4", "6", "8", "9", "three", "-1"] {
            assert!(count(refused).unwrap_err().contains("1, 3, 5 or 7"), "{refused}");
        }
    }
}
