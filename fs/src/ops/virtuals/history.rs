//! The past: `%rev/N`, `KEY%rev`, and logs.

use std::ffi::OsStr;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, successor};
use futures_util::StreamExt as _;

use super::registry::{Found, Log};
use super::{Fs, listed};
use crate::errno::OpError;
use crate::map::{Dir, Key, KeyMap, Rel, Step};
use crate::node::{Kind, ListingEntry};
use crate::remote::{
    At, Changed, Event, Freshness, KeyValue, PageRequest, Probe, Remote, RemoteError, Revision, Watch,
    Watched,
};
use crate::r#virtual::{Place, Scope, View, parse_revision, render};

impl Fs {
    /// `%rev/N`, if the server still has that revision.
    pub(super) async fn found_revision(&self, name: &OsStr) -> Result<Found, OpError> {
        let at = parse_revision(name).ok_or(OpError::NotFound)?;
        let range = self.map.key_range(&self.map.root());
        let page = PageRequest { range, limit: 1, keys_only: true, how: Freshness::Exactly(at) };
        self.remote.page(page).await?;
        Ok(Found::dir(Place::Past { at, dir: self.map.root() }, at))
    }

    pub(super) async fn found_past(&self, at: Revision, dir: &Dir, name: &OsStr) -> Result<Found, OpError> {
        let how = Freshness::Exactly(at);
        let entry = match self.map.step(dir, name).map_err(OpError::in_lookup)? {
            Step::Entry(entry) => entry,
            Step::Value(key) => {
                let At { found, .. } = self.remote.get(key, how).await?;
                return found.map(|kv| past_file(at, kv)).ok_or(OpError::NotFound);
            }
            Step::More(dir) | Step::Rel(dir) => return Ok(Found::dir(Place::Past { at, dir }, at)),
            Step::Reserved(word) => return Box::pin(self.found_reserved(word, Some(at))).await,
        };
        let mut probes = vec![self.probe(entry.key.clone(), &entry.dir)];
        let link = self.map.rel_link(dir, name);
        probes.extend(link.as_ref().map(|link| self.probe(link.entry.key.clone(), &link.entry.dir)));
        let At { found, .. } = self.remote.lookup(probes, how).await?;
        let mut found = found.into_iter();
        let here = found.next().unwrap_or_default();
        if here.below.is_some() || here.record.is_some() {
            return Ok(Found::dir(Place::Past { at, dir: entry.dir }, at));
        }
        if let Some(kv) = here.kv {
            return Ok(past_file(at, kv));
        }
        let bare = found.next().unwrap_or_default();
        match link {
            Some(link) if bare.kv.is_some() || bare.below.is_some() => {
                let bytes = link.target.len();
                Ok(Found::link(Place::PastLink { at, target: link.target }, bytes, at))
            }
            _ => Err(OpError::NotFound),
        }
    }

    fn probe(&self, key: Key, dir: &Dir) -> Probe {
        Probe { key, below: self.map.key_range(dir), records: self.map.record_range(dir) }
    }

    /// `KEY%rev/N`: the revision that put the key, whether or not it is still there as of itself.
    pub(super) async fn found_key_revision(&self, key: &Key, name: &OsStr) -> Result<Found, OpError> {
        let wanted = parse_revision(name).ok_or(OpError::NotFound)?;
        let (at, kv) = match self.remote.get(key.clone(), Freshness::Exactly(wanted)).await {
            Ok(At { found, .. }) => (wanted, found),
            // What was newest when the past was compacted is readable as of then.
            Err(RemoteError::Compacted(compacted)) => {
                let at = match compacted {
                    Some(at) => at,
                    None => self.oldest().await?,
                };
                (at, self.remote.get(key.clone(), Freshness::Exactly(at)).await?.found)
            }
            Err(error) => return Err(error.into()),
        };
        match kv {
            Some(kv) if kv.mod_revision == wanted => Ok(past_file(at, kv)),
            _ => Err(OpError::NotFound),
        }
    }

    pub(super) async fn list_revisions(&self, key: &Key) -> Result<Vec<ListingEntry>, OpError> {
        let oldest = self.oldest().await?;
        let mut revisions = Vec::new();
        if oldest > Revision(1) {
            let before = self.remote.get(key.clone(), Freshness::Exactly(oldest)).await?.found;
            revisions.extend(before.map(|kv| kv.mod_revision));
        }
        let start = key.bytes();
        let range = KeyRange { end: Some(successor(&start)), start };
        let (mut watch, head) = self.past_watch(vec![range], Revision(oldest.0 + 1)).await?;
        let mut done = false;
        while !done {
            let changed;
            (changed, done) = next_past(&mut watch, head).await?;
            if let Some(Changed { revision, events }) = changed {
                let put = events.iter().any(|event| matches!(event, Event::Put(_)));
                revisions.extend(put.then_some(revision));
            }
        }
        revisions.dedup();
        Ok(revisions.into_iter().map(|revision| listed(revision.to_string().into(), Kind::File)).collect())
    }

    pub(super) async fn past_value(&self, at: Revision, key: &Key) -> Result<Bytes, OpError> {
        let At { found, .. } = self.remote.get(key.clone(), Freshness::Exactly(at)).await?;
        found.map(|kv| kv.value).ok_or(OpError::Stale)
    }

    /// The oldest revision that can still be read.
    async fn oldest(&self) -> Result<Revision, OpError> {
        let range = self.map.key_range(&self.map.root());
        let mut watch = self.remote.watch(vec![range], Revision(1));
        loop {
            match watch.next().await {
                Some(Ok(Watched::Changed(_) | Watched::UpTo(_))) => return Ok(Revision(1)),
                Some(Ok(Watched::Lost | Watched::Back)) => {}
                Some(Err(RemoteError::Compacted(Some(compacted)))) => return Ok(compacted),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(OpError::Remote(RemoteError::Closed)),
            }
        }
    }

    /// A watch from the past, and up to where it is the past.
    async fn past_watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<(Watch, Revision), OpError> {
        let range = self.map.key_range(&self.map.root());
        let page = PageRequest { range, limit: 1, keys_only: true, how: Freshness::Linearizable };
        let At { revision, .. } = self.remote.page(page).await?;
        Ok((self.remote.watch(ranges, from), revision))
    }

    /// A log: the mount's own, or one that begins at a revision of the past and goes on.
    pub(super) async fn found_log(&self, scope: Scope, from: Option<Revision>) -> Result<Found, OpError> {
        let place = Place::Log { scope: scope.clone(), from };
        let mut found = Found::file(place, 0, Revision(0));
        found.log = match from {
            _ if self.virtuals.knows(&found.place) => None,
            None => Some(Log { view: self.virtuals.journal.view(scope), feed: None }),
            Some(from) => Some(self.feed(scope, from).await?),
        };
        Ok(found)
    }

    async fn feed(&self, scope: Scope, from: Revision) -> Result<Log, OpError> {
        let ranges = match &scope {
            Scope::All | Scope::Bare if self.map.rel() != Rel::Off => vec![KeyRange::prefix(&Bytes::new())],
            Scope::All | Scope::Bare => vec![self.map.key_range(&self.map.root())],
            Scope::Below(prefix) => vec![KeyRange::prefix(prefix)],
            Scope::Key(key) => vec![KeyRange { start: key.clone(), end: Some(successor(key)) }],
        };
        let (mut watch, head) = self.past_watch(ranges, from).await?;
        let view = Arc::new(View::new(scope.clone()));
        let scribe = Scribe { map: self.map.clone(), remote: self.remote.clone(), scope };
        let mut done = false;
        while !done {
            let changed;
            (changed, done) = next_past(&mut watch, head).await?;
            changed.inspect(|changed| scribe.write(&view, changed));
        }
        let task = self.runtime.spawn(scribe.go_on(watch, Arc::downgrade(&view)));
        Ok(Log { view, feed: Some(task.abort_handle()) })
    }
}

fn past_file(at: Revision, kv: KeyValue) -> Found {
    let (size, rev) = (kv.value.len() as u64, kv.mod_revision);
    Found::file(Place::PastFile { at, key: kv.key }, size, rev)
}

/// The next change, if there is one, and whether all up to `head` have come.
async fn next_past(watch: &mut Watch, head: Revision) -> Result<(Option<Changed>, bool), OpError> {
    loop {
        match watch.next().await {
            Some(Ok(Watched::Changed(changed))) => {
                let done = changed.revision >= head;
                return Ok((Some(changed), done));
            }
            Some(Ok(Watched::UpTo(revision))) if revision >= head => return Ok((None, true)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(OpError::Remote(RemoteError::Closed)),
        }
    }
}

/// Writes the lines of a log that has a watch of its own.
struct Scribe {
    map: KeyMap,
    remote: Arc<dyn Remote>,
    scope: Scope,
}

impl Scribe {
    fn write(&self, view: &View, changed: &Changed) {
        let time = self.remote.time_of(changed.revision);
        for event in &changed.events {
            let key = match event {
                Event::Put(kv) => &kv.key,
                Event::Delete(key) => key,
            };
            if self.scope.covers(key) {
                view.push(changed.revision, render(&self.map, changed.revision, time, event));
            }
        }
    }

    async fn go_on(self, mut watch: Watch, view: Weak<View>) {
        while let Some(Ok(watched)) = watch.next().await {
            let Some(view) = view.upgrade() else { return };
            if let Watched::Changed(changed) = watched {
                self.write(&view, &changed);
            }
        }
    }
}
