//! What a mount shows and does without, by its user's rights.

use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use etcfs_proto::key::{KeyRange, KeySet};
use tokio::time::timeout;

use super::ATTEMPT;
use crate::config::Config;
use crate::map::{KeyMap, Rel, rights, rights::Need};
use crate::remote::client::{Rights, Server};
use crate::remote::unrecorded::Unrecorded;
use crate::remote::visible::{Limits, Visible};
use crate::remote::{Remote, RemoteError};

/// What the mount's user may not do, beside reading its keys, and the mount does without.
#[derive(Default)]
pub(super) struct Missing {
    directories: bool,
    pub(super) locks: bool,
    /// In words.
    pub(super) told: Vec<String>,
}

impl Missing {
    fn tell(&mut self, range: &KeyRange, without: &str) {
        self.told.push(format!("`{}`: {without}", range.start.escape_ascii()));
    }
}

const NO_REL: &str = "keys without a leading slash: there is no %rel";
const NO_DIRECTORIES: &str = "empty directories are kept in memory";
const NO_LOCKS: &str = "there are no locks";
const NO_CHANGES: &str = "nothing can be changed";

/// Ranges of keys that `visible=mine` shows: each is watched and read by itself.
const SHOWN_MAX: usize = 64;

/// What is mounted, as far as the user's rights decide that.
pub(super) struct Mounted {
    pub(super) map: KeyMap,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) missing: Missing,
}

/// Asks for the user's rights, as long as a mount waits for its server; `None` where he may do everything.
pub(super) async fn rights(config: &Config, server: &Server) -> Result<Option<Rights>, String> {
    let asked = async {
        if !server.has_user() {
            return Ok(None);
        }
        // Until it answers at all, whatever it is.
        let _answer = server.server().await;
        server.rights().await.map_err(|error| error.to_string())
    };
    let limit = config.retry.max(ATTEMPT);
    timeout(limit, asked).await.unwrap_or_else(|_| Err(RemoteError::TimedOut(limit).to_string()))
}

/// What a mount shows to whom the server says may do this.
pub(super) fn mounted(
    config: &Config,
    server: &Arc<Server>,
    rights: Result<Option<Rights>, String>,
) -> anyhow::Result<Mounted> {
    match &rights {
        Ok(Some(rights)) if config.visible_mine => visible(config, server, rights),
        Err(why) if config.visible_mine => {
            bail!("{}: the user's rights are not known: {why}", config.source.text)
        }
        rights => Ok(whole(config, server, rights.as_ref().ok().and_then(Option::as_ref), config.rel)),
    }
}

/// All that begins with the prefix: `begin` says what is wrong with that.
fn whole(config: &Config, server: &Arc<Server>, rights: Option<&Rights>, rel: Rel) -> Mounted {
    let mut map = KeyMap::new(config.source.prefix.clone(), config.percent, rel);
    let read_only = config.view.read_only;
    let mut missing = Missing::default();
    let all = KeyRange::prefix(&Bytes::new());
    if map.rel() != Rel::Off && rights.is_some_and(|rights| !rights.read.covers(&all)) {
        map = KeyMap::new(config.source.prefix.clone(), config.percent, Rel::Off);
        missing.told.push(NO_REL.to_owned());
    }
    let needed = rights::ranges(&config.source.prefix, read_only, &server.changes());
    let lacking =
        |(_, range): &&(Need, KeyRange)| rights.is_some_and(|rights| !rights.cover(range, !read_only));
    for (need, range) in needed.iter().filter(lacking) {
        match need {
            // Without it nothing is mounted.
            Need::Keys => {}
            Need::Directories => {
                missing.directories = true;
                missing.tell(range, NO_DIRECTORIES);
            }
            Need::Locks => {
                missing.locks = true;
                missing.tell(range, NO_LOCKS);
            }
            Need::Changes => missing.tell(range, NO_CHANGES),
        }
    }
    let remote: Arc<dyn Remote> = if missing.directories && map.rel() == Rel::Off {
        Arc::new(Unrecorded::new(server.clone()))
    } else {
        server.clone()
    };
    Mounted { map, remote, missing }
}

/// What the user may read of it.
fn visible(config: &Config, server: &Arc<Server>, rights: &Rights) -> anyhow::Result<Mounted> {
    let map = |rel| KeyMap::new(config.source.prefix.clone(), config.percent, rel);
    let none = KeySet::default();
    let write = if config.view.read_only { &none } else { &rights.write };
    let granted = |map: &KeyMap| {
        let all = if map.rel() == Rel::Off { map.prefix().clone() } else { Bytes::new() };
        (rights::granted(&KeyRange::prefix(&all), &rights.read, write), all)
    };
    let mut map_of = map(config.rel);
    let (mut shown, mut all) = granted(&map_of);
    let inside = KeyRange::prefix(map_of.prefix());
    if map_of.rel() != Rel::Off && shown.shown.ranges().all(|part| part.and(&inside).as_ref() == Some(&part))
    {
        // Of the keys without a slash, none is the user's.
        map_of = map(Rel::Off);
        (shown, all) = granted(&map_of);
    }
    let count = shown.shown.ranges().count();
    if count == 0 {
        let why = denied_of(config, server, rights);
        bail!("{}: {why}", config.source.text);
    }
    if count > SHOWN_MAX {
        bail!(
            "{}: the user may read {count} ranges of keys here, and visible=mine shows {SHOWN_MAX} at most; \
             mount a longer prefix",
            config.source.text
        );
    }
    if shown.shown.covers(&KeyRange::prefix(&all)) {
        return Ok(whole(config, server, Some(rights), map_of.rel()));
    }
    let mut missing = Missing::default();
    let writes = |range: &KeyRange| rights.cover(range, true);
    for range in shown.directories.ranges().filter(|range| !writes(range)) {
        missing.directories = true;
        missing.tell(&range, NO_DIRECTORIES);
    }
    for range in shown.written.ranges().map(|part| rights::locks_of(&part)).filter(|range| !writes(range)) {
        missing.tell(&range, NO_LOCKS);
    }
    let changes = KeyRange::prefix(&server.changes().into());
    if shown.written.ranges().next().is_some() && !writes(&changes) {
        missing.tell(&changes, NO_CHANGES);
    }
    let mut limits = Limits {
        read: rights.read.clone(),
        write: write.clone(),
        fixed: shown.fixed,
        shown: shown.shown,
        ..Limits::default()
    };
    let mut below: Arc<dyn Remote> = server.clone();
    if missing.directories {
        below = Arc::new(Unrecorded::new(server.clone()));
        limits.kept = shown.directories;
        limits.read.merge(limits.kept.clone());
        limits.write.merge(limits.kept.clone());
    }
    let remote = Arc::new(Visible::new(below, limits));
    Ok(Mounted { map: map_of, remote, missing })
}

/// Why the user may not mount this, and what he may.
pub(super) async fn denied(config: &Config, server: &Server) -> Option<String> {
    let rights = server.rights().await.ok().flatten()?;
    Some(denied_of(config, server, &rights))
}

fn denied_of(config: &Config, server: &Server, rights: &Rights) -> String {
    let (prefix, read_only) = (&config.source.prefix, config.view.read_only);
    let needed = rights::ranges(prefix, read_only, &server.changes());
    let words = if read_only { "read" } else { "read and write" };
    let named = |range: &KeyRange| format!("`{}`", range.start.escape_ascii());
    let lacking: Vec<String> = needed
        .iter()
        .filter(|(_, range)| !rights.cover(range, !read_only))
        .map(|(_, range)| named(range))
        .collect();
    let mut others = rights.readable().filter_map(|range| rights::spelled(&range)).peekable();
    let mut why = match lacking.as_slice() {
        // Of other keys than those below the prefix.
        [] => {
            "the user may not read bare keys, without a leading slash; -o rel=off leaves them out".to_owned()
        }
        lacking => format!(
            "the user may not {words} all that begins with {}; `etcfs role grant-mount` grants a role what a mount needs",
            lacking.join(", ")
        ),
    };
    if others.peek().is_some() {
        why += &format!(". This user may mount: {}", others.collect::<Vec<_>>().join(", "));
        if !config.visible_mine {
            why += "; visible=mine shows what there is of the user's";
        }
    }
    why
}
