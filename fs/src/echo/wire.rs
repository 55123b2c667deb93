//! What the daemon orders its helper to do, as bytes. Both are the same binary, so there is one version of it.

/// One system call or two, that make the kernel tell inotify's listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Make a file, set its length, close it.
    Create {
        at: Path,
        len: u64,
    },
    /// Open a file, set its length, close it.
    Modify {
        at: Path,
        len: u64,
    },
    Remove {
        at: Path,
    },
    MakeDir {
        at: Path,
    },
    RemoveDir {
        at: Path,
    },
    MakeLink {
        at: Path,
        target: Vec<u8>,
    },
    Move {
        from: Path,
        to: Path,
    },
    /// Like [`Order::Modify`], of an inode.
    Touch {
        node: u64,
        len: u64,
    },
    /// Look at an inode whose file is gone.
    Look {
        node: u64,
    },
    /// Keep hold of the inode that a name leads to, so that it can be touched without the right to open handles.
    Hold {
        at: Path,
    },
    /// End [`Order::Hold`].
    LetGo {
        node: u64,
    },
}

/// A name below the mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Names with slashes between; empty for the mount point itself.
    pub(super) parent: Vec<u8>,
    pub(super) name: Vec<u8>,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// 0 or an errno.
    pub(super) errno: i32,
    /// Of [`Order::Hold`], the inode that is held; of [`Order::Touch`], [`IN_DIRECTORY`] or 0.
    pub(super) node: u64,
}

/// The inode had a name, used or given up, whose directory's listeners have heard the touch too.
pub(super) const IN_DIRECTORY: u64 = 1;

/// A message is its length, and so many bytes.
pub(super) const LENGTH_BYTES: usize = 4;
pub(super) const REPLY_BYTES: usize = 12;

impl Order {
    /// The whole message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; LENGTH_BYTES];
        let (tag, numbers, texts): (u8, [u64; 2], Vec<&[u8]>) = match self {
            Self::Create { at, len } => (0, [*len, 0], vec![&at.parent, &at.name]),
            Self::Modify { at, len } => (1, [*len, 0], vec![&at.parent, &at.name]),
            Self::Remove { at } => (2, [0; 2], vec![&at.parent, &at.name]),
            Self::MakeDir { at } => (3, [0; 2], vec![&at.parent, &at.name]),
            Self::RemoveDir { at } => (4, [0; 2], vec![&at.parent, &at.name]),
            Self::MakeLink { at, target } => (5, [0; 2], vec![&at.parent, &at.name, target]),
            Self::Move { from, to } => (6, [0; 2], vec![&from.parent, &from.name, &to.parent, &to.name]),
            Self::Touch { node, len } => (7, [*node, *len], vec![]),
            Self::Look { node } => (8, [*node, 0], vec![]),
            Self::Hold { at } => (9, [0; 2], vec![&at.parent, &at.name]),
            Self::LetGo { node } => (10, [*node, 0], vec![]),
        };
        out.push(tag);
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        for text in texts {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text);
        }
        let len = (out.len() - LENGTH_BYTES) as u32;
        out[..LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
        out
    }

    /// Reads a message without its length.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let tag = take(&mut bytes, 1)?[0];
        let one = number(&mut bytes)?;
        let two = number(&mut bytes)?;
        let mut path = || Some(Path { parent: text(&mut bytes)?, name: text(&mut bytes)? });
        Some(match tag {
            0 => Self::Create { at: path()?, len: one },
            1 => Self::Modify { at: path()?, len: one },
            2 => Self::Remove { at: path()? },
            3 => Self::MakeDir { at: path()? },
            4 => Self::RemoveDir { at: path()? },
            5 => Self::MakeLink { at: path()?, target: text(&mut bytes)? },
            6 => Self::Move { from: path()?, to: path()? },
            7 => Self::Touch { node: one, len: two },
            8 => Self::Look { node: one },
            9 => Self::Hold { at: path()? },
            10 => Self::LetGo { node: one },
            _ => return None,
        })
    }
}

impl Reply {
    pub(super) fn encode(self) -> [u8; REPLY_BYTES] {
        let mut out = [0; REPLY_BYTES];
        out[..4].copy_from_slice(&self.errno.to_le_bytes());
        out[4..].copy_from_slice(&self.node.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: [u8; REPLY_BYTES]) -> Self {
        let [a, b, c, d, node @ ..] = bytes;
        Self { errno: i32::from_le_bytes([a, b, c, d]), node: u64::from_le_bytes(node) }
    }
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?))
}

fn text(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
    Some(take(bytes, len as usize)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given() {
        let at = Path { parent: b"a/b".to_vec(), name: b"c".to_vec() };
        let to = Path { parent: Vec::new(), name: b"d".to_vec() };
        for order in [
            Order::Create { at: at.clone(), len: 7 },
            Order::Modify { at: at.clone(), len: u64::MAX },
            Order::Remove { at: at.clone() },
            Order::MakeDir { at: at.clone() },
            Order::RemoveDir { at: at.clone() },
            Order::MakeLink { at: at.clone(), target: b"%rel/c".to_vec() },
            Order::Move { from: at.clone(), to },
            Order::Touch { node: 1 << 62, len: 3 },
            Order::Look { node: 5 },
            Order::Hold { at },
            Order::LetGo { node: 6 },
        ] {
            let bytes = order.encode();
            assert_eq!(
                bytes.len() - LENGTH_BYTES,
                u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
            );
            assert_eq!(Order::decode(&bytes[LENGTH_BYTES..]), Some(order.clone()));
            assert_eq!(Order::decode(&bytes[LENGTH_BYTES..bytes.len() - 1]), None, "{order:?} cut short");
        }
        let reply = Reply { errno: 2, node: 1 << 63 };
        assert_eq!(Reply::decode(reply.encode()), reply);
    }
}
