//! Editors' scratch files: kept in this mount until they are renamed onto what they
//! were made for, removed, or found to be meant as files.
//!
//! sed -i, vim and emacs make files that nobody shall see and that are gone a moment
//! later; as keys each would be several revisions that every watcher hears of.
//! Deferred is not dropped: one that is still there two seconds after its last
//! close, at fsync (swap files apart) or at unmount becomes a key. If another client
//! has taken its name by then, it becomes one beside that.

use std::ffi::OsStr;
use std::time::Duration;

use bytes::Bytes;

use super::put::{FsRef, Shown};
use super::{Fs, key, put_value};
use crate::errno::OpError;
use crate::node::{Fh, Moment};
use crate::remote::{Change, Committed, Compare, Op};

/// How long after its last close a scratch file becomes a key.
const KEPT: Duration = Duration::from_secs(2);

/// Names that are tried for one whose own is taken.
const BACKUPS_MAX: usize = 100;

/// `Some(true)` for a swap file, which stays local while it is open whatever is synced,
/// `Some(false)` for another scratch file, by its name.
pub(super) fn scratch_kind(name: &OsStr, patterns: &[String]) -> Option<bool> {
    let name = name.as_encoded_bytes();
    if is_vim_swap(name) {
        return Some(true);
    }
    // vim looks whether it may create files here; the number goes up by 123 until it is free.
    let is_vim_probe = std::str::from_utf8(name)
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .is_some_and(|number| (4913..4913 + 123 * 100).contains(&number) && (number - 4913) % 123 == 0);
    (is_vim_probe || patterns.iter().any(|pattern| matches(pattern.as_bytes(), name))).then_some(false)
}

/// `.NAME.swp`, and the further ones: `.swo` down to `.saa`; `.swpx` is vim's test for
/// file systems with short names.
fn is_vim_swap(name: &[u8]) -> bool {
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else { return false };
    let suffix = &name[dot + 1..];
    name.starts_with(b".")
        && dot > 0
        && match suffix {
            [b's', a, b] => (b'a'..=b'w').contains(a) && b.is_ascii_lowercase(),
            _ => suffix == b"swpx",
        }
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, name)| matches(pattern, name))
        }
        (Some((b'?', rest)), Some((_, name))) => matches(rest, name),
        (Some((wanted, rest)), Some((byte, name))) => wanted == byte && matches(rest, name),
        _ => false,
    }
}

impl Fs {
    /// Nobody has the scratch file open any more: its time runs.
    pub(super) fn scratch_closed(self: &FsRef, name: Bytes) {
        let fs = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(KEPT).await;
            if fs.is_stopping() || fs.nodes.with(|table| table.open_handles(&name)) > 0 {
                return;
            }
            fs.promote(&name).await;
        });
    }

    pub(super) async fn promote(&self, name: &Bytes) {
        let _turn = self.turn(name).await;
        let promoted = match self.promote_held(name, None).await {
            Err(OpError::Stale) => self.keep_beside(name).await,
            promoted => promoted.map(drop),
        };
        if let Err(error) = promoted {
            tracing::warn!(key = %name.escape_ascii(), %error, "a scratch file could not be made a key");
        }
    }

    /// Makes a scratch file whose name another client has taken a key of another name, as editors name backups.
    async fn keep_beside(&self, name: &Bytes) -> Result<(), OpError> {
        let numbered = (1..=BACKUPS_MAX).map(|number| format!("~{number}~"));
        for suffix in std::iter::once("~".to_owned()).chain(numbered) {
            let facts = self.nodes.with(|table| table.facts(name));
            let Some(value) = facts.known.value().filter(|_| facts.scratch) else { return Ok(()) };
            let backup = Bytes::from([name.as_ref(), suffix.as_bytes()].concat());
            let change = Change {
                compares: vec![Compare::Absent(key(&backup))],
                then: vec![Op::put(key(&backup), value.bytes.clone())],
                otherwise: Vec::new(),
            };
            let Committed { revision, succeeded, .. } = self.commit(change).await?;
            if succeeded {
                tracing::warn!(
                    key = %name.escape_ascii(),
                    kept = %backup.escape_ascii(),
                    "another client has taken the name of a scratch file, which is kept under another"
                );
                let value = put_value(value.bytes.clone(), revision.0, None, 0);
                let _nobody_waits = self.own_change(&backup, revision.0, Some(0), Some(value));
                self.nodes.with(|table| table.change_local(name, None));
                return self.refresh(name, revision.0).await;
            }
        }
        Err(OpError::Exists)
    }

    /// Makes a scratch file a key. The caller has the key's turn.
    pub(super) async fn promote_held(&self, name: &Bytes, fh: Option<Fh>) -> Result<Shown, OpError> {
        let facts = self.nodes.with(|table| table.facts(name));
        let Some(value) = facts.known.value().filter(|_| facts.scratch) else { return Ok(Shown::already()) };
        let change = Change {
            compares: vec![Compare::Absent(key(name))],
            then: vec![Op::put(key(name), value.bytes.clone())],
            otherwise: Vec::new(),
        };
        let Committed { revision, succeeded, .. } = self.commit(change).await?;
        if !succeeded {
            // As for every file that is another one by now.
            return Err(OpError::Stale);
        }
        let value = put_value(value.bytes.clone(), revision.0, None, 0);
        if let Some(fh) = fh {
            self.nodes.with(|table| table.writer_put(fh, revision.0));
        }
        Ok(self.own_change(name, revision.0, Some(0), Some(value)))
    }

    /// Everything unsaved becomes keys: the mount ends.
    pub(super) async fn put_everything(self: &FsRef) {
        for fh in self.nodes.with(|table| table.writers()) {
            if let Err(error) = self.flush(fh, Moment::Release).await {
                tracing::warn!(%error, "an open file could not be saved");
            }
        }
        for name in self.nodes.with(|table| table.local_keys().cloned().collect::<Vec<_>>()) {
            self.promote(&name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Option<bool> {
        let patterns: Vec<String> = crate::config::SCRATCH.iter().map(|&p| p.to_owned()).collect();
        scratch_kind(OsStr::new(name), &patterns)
    }

    #[test]
    fn editors_scratch_files_are_known_by_their_names() {
        for name in [".f.swp", ".f.txt.swo", ".f.swpx", ".f.saa"] {
            assert_eq!(kind(name), Some(true), "{name}");
        }
        for name in ["sedAbC123", "4913", "5036", "#f#", ".#f"] {
            assert_eq!(kind(name), Some(false), "{name}");
        }
        for name in ["f", "f.swp", ".swp", "4914", "sedAbC1234", "sedan", "a.sxp"] {
            assert_eq!(kind(name), None, "{name}");
        }
    }
}
