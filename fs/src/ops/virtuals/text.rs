//! Files that are written anew at each opening.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etcfs_proto::key::KeyRange;
use tokio::time::timeout;

use super::Fs;
use super::registry::{Facts, Found};
use crate::errno::OpError;
use crate::lock::{LOCK_RECORDS, Record, file_of, line};
use crate::map::Rel;
use crate::node::{Stats, Trust};
use crate::remote::{At, Freshness, LeaseId, Page, PageRequest, RemoteError, Revision};
use crate::r#virtual::{Place, Status};

/// Whoever asks how the mount is doing is told, also where the server does not answer.
const SERVER_WITHIN: Duration = Duration::from_secs(1);

/// Records of locks read at a time.
const LOCKS_PAGE: u32 = 1000;

impl Fs {
    pub(super) async fn found_text(&self, place: Place) -> Result<Found, OpError> {
        let size = self.text_of(&place).await?.len() as u64;
        Ok(Found::file(place, size, Revision(0)))
    }

    pub(super) async fn text_of(&self, place: &Place) -> Result<Bytes, OpError> {
        match place {
            Place::LeaseTtl(lease) => self.lease_text(*lease, true).await,
            Place::LeaseGranted(lease) => self.lease_text(*lease, false).await,
            Place::Locks => self.locks_text().await,
            Place::Status => Ok(self.status_text().await),
            _ => Err(OpError::Malformed("not a text")),
        }
    }

    async fn lease_text(&self, lease: LeaseId, left: bool) -> Result<Bytes, OpError> {
        let facts = self.remote.lease_facts(lease).await?.ok_or(OpError::NotFound)?;
        Ok(format!("{}\n", if left { facts.left_seconds } else { facts.granted_seconds }).into())
    }

    /// A line for each lock of a file that the mount shows.
    async fn locks_text(&self) -> Result<Bytes, OpError> {
        let prefix: &[u8] = if self.map.rel() == Rel::Off { self.map.prefix() } else { b"" };
        let mut range = KeyRange::prefix(&[LOCK_RECORDS, prefix].concat().into());
        let mut how = Freshness::Linearizable;
        let mut text = String::new();
        loop {
            let page = PageRequest { range: range.clone(), limit: LOCKS_PAGE, keys_only: false, how };
            let At { revision, found: Page { kvs, more } } = self.remote.page(page).await?;
            for kv in &kvs {
                if let (Some(file), Some(record)) = (file_of(&kv.key), Record::read(kv)) {
                    text.push_str(&line(file, &record));
                }
            }
            match kvs.last() {
                Some(last) if more => range.start = etcfs_proto::key::successor(&last.key),
                _ => return Ok(text.into()),
            }
            how = Freshness::Exactly(revision);
        }
    }

    async fn status_text(&self) -> Bytes {
        let server = match timeout(SERVER_WITHIN, self.remote.server()).await {
            Ok(answer) => answer,
            Err(_) => Err(RemoteError::TimedOut(SERVER_WITHIN)),
        };
        let stats: Stats = self.nodes.with(|table| table.stats());
        let (locks, locks_lost) = self.locks.counts();
        let log_bytes = self.virtuals.journal.bytes();
        let Facts { lacks, last_error, lost, rights, too_many_links } = self.virtuals.facts.lock().clone();
        let status = Status {
            endpoints: self.remote.endpoints(),
            server,
            watched: Revision(stats.seen),
            lost,
            patience: self.view.patience,
            names: match (self.trust(), self.view.strict) {
                (Trust::Waits, _) => "wait for the server",
                (Trust::Refused, _) => "are refused by the server",
                (Trust::Given, true) => "are asked for",
                (Trust::Given, false) => "are shown as cached",
            },
            cached_bytes: stats.cached_bytes,
            cached_bytes_max: stats.cached_bytes_max,
            keys: stats.keys,
            dirs: stats.dirs,
            inodes: stats.inodes,
            open_files: stats.open,
            log_bytes,
            locks,
            locks_lost,
            lacks,
            rights,
            shown: self.remote.shown(),
            too_many_links,
            last_error,
            metrics: self.metrics.get().map(|(address, _)| *address),
            up: self.started.elapsed().unwrap_or_default(),
        };
        status.to_string().into()
    }

    /// Remembers an error for `%status`, if it is the server's or a lock's: others are the programs' own.
    pub(crate) fn note_error(&self, error: &OpError) {
        if matches!(error, OpError::Remote(refused) if refused.is_refusal()) {
            self.doubt_rights();
        }
        let ours = match error {
            OpError::Remote(RemoteError::NoSuchLease | RemoteError::TooLarge | RemoteError::Closed) => false,
            OpError::Remote(_) | OpError::LocksLost => true,
            _ => false,
        };
        if ours {
            self.virtuals.facts.lock().last_error = Some((SystemTime::now(), error.to_string()));
        }
    }

    /// Remembers what the kernel does not offer.
    pub(crate) fn note_lacks(&self, features: String) {
        self.virtuals.facts.lock().lacks = Some(features);
    }

    /// Remembers which rights the mount goes without.
    pub(crate) fn note_rights(&self, lacking: String) {
        self.virtuals.facts.lock().rights = Some(lacking);
    }

    /// Remembers whether the root leaves its links out.
    pub(in crate::ops) fn note_links(&self, too_many: bool) {
        self.virtuals.facts.lock().too_many_links = too_many;
    }

    /// Remembers whether the watch has a server.
    pub(crate) fn note_lost(&self, lost: bool) {
        let count = if lost { &self.counts.lost } else { &self.counts.reconnected };
        count.add(1);
        self.virtuals.facts.lock().lost = lost.then(SystemTime::now);
    }

    /// True while the watch has no server.
    pub(crate) fn is_lost(&self) -> bool {
        self.virtuals.facts.lock().lost.is_some()
    }
}
