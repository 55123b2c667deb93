//! Writing through open files, and what closing them means.
//!
//! A small first write of a fresh handle is put inside write(2), so that its error
//! is seen by programs that ignore close(2)'s. What follows is buffered until
//! flush, fsync or release.

use bytes::Bytes;

use super::put::{FsRef, Turn};
use super::{Fs, OpenHow, Owner};
use crate::config::Put;
use crate::errno::{Errno, OpError};
use crate::node::{Fh, Moment, NodeId};

/// First writes shorter than this are put at once: a shell's echo is, the first buffer
/// of a longer copy is not.
const SMALL: usize = 4096;

impl Fs {
    /// Buffers a write, where nothing need be put for it; `None` if something must.
    pub(crate) fn write_now(
        &self,
        fh: Fh,
        pid: u32,
        offset: u64,
        data: &[u8],
    ) -> Option<Result<(), OpError>> {
        let writer = self.nodes.with(|table| table.writer_key(fh));
        let Some((key, first)) = writer else { return Some(Err(OpError::BadHandle)) };
        let turn = self.turn_now(&key)?;
        let moment = self.moment(data.len(), first);
        if self.nodes.with(|table| table.due(fh, moment)) {
            return None;
        }
        let result = self.buffer(fh, pid, offset, data);
        drop(turn);
        Some(result)
    }

    pub(crate) async fn write(&self, fh: Fh, pid: u32, offset: u64, data: Bytes) -> Result<(), OpError> {
        let (key, _) = self.nodes.with(|table| table.writer_key(fh)).ok_or(OpError::BadHandle)?;
        let turn: Turn = self.turn(&key).await;
        let first = self.nodes.with(|table| table.writer_key(fh)).is_some_and(|(_, first)| first);
        let moment = self.moment(data.len(), first);
        self.buffer(fh, pid, offset, &data)?;
        let put = self.put_if_due(fh, moment).await?;
        drop(turn);
        self.shown(put).await;
        Ok(())
    }

    fn moment(&self, len: usize, first: bool) -> Moment {
        Moment::Write { small: len < SMALL && self.view.put == Put::Write, first }
    }

    fn buffer(&self, fh: Fh, pid: u32, offset: u64, data: &[u8]) -> Result<(), OpError> {
        let (now, asker) = (self.time_of_unsaved(), self.asker_writing(fh, pid));
        self.nodes.with(|table| {
            let writer = table.writer_state(fh).ok_or(OpError::BadHandle)?;
            if let Some(errno) = writer.failed {
                return Err(OpError::Failed(Errno(errno)));
            }
            let len = if writer.append {
                writer.len + data.len() as u64
            } else {
                writer.len.max(offset.saturating_add(data.len() as u64))
            };
            if let Err(error) = self.check_len(len) {
                table.fail_writer(fh, Errno::from(&error).0);
                return Err(error);
            }
            table.edit(fh, asker, now, |edits| {
                if writer.append { edits.append(data) } else { edits.write(offset, data) }
            });
            Ok(())
        })
    }

    /// close(2): nothing to do in the common case.
    pub(crate) fn flush_now(&self, fh: Fh) -> Option<Result<(), OpError>> {
        self.nodes.with(|table| {
            if let Some(errno) = table.reader_failed(fh) {
                return Some(Err(OpError::Failed(Errno(errno))));
            }
            let Some(writer) = table.writer_state(fh) else { return Some(Ok(())) };
            if let Some(errno) = writer.failed {
                return Some(Err(OpError::Failed(Errno(errno))));
            }
            // What waits for a first write is due if this close is the last one.
            (!table.due(fh, Moment::Release)).then_some(Ok(()))
        })
    }

    pub(crate) async fn flush(&self, fh: Fh, moment: Moment) -> Result<(), OpError> {
        let Some((key, _)) = self.nodes.with(|table| table.writer_key(fh)) else { return Ok(()) };
        let turn: Turn = self.turn(&key).await;
        if let Some(errno) = self.nodes.with(|table| table.writer_state(fh)).and_then(|writer| writer.failed)
        {
            return Err(OpError::Failed(Errno(errno)));
        }
        let mut put = self.put_if_due(fh, moment).await?;
        let scratch = self.nodes.with(|table| table.facts(&key).scratch && !table.scratch_stays_local(&key));
        if moment == Moment::Fsync && scratch {
            put = self.promote_held(&key, Some(fh)).await?;
        }
        drop(turn);
        self.shown(put).await;
        Ok(())
    }

    /// close(2) by `pid`, of one of the descriptors of an open file. The locks of a process end with its first
    /// close of the file.
    pub(crate) async fn close(
        self: FsRef,
        id: NodeId,
        fh: Fh,
        owner: Owner,
        pid: u32,
    ) -> Result<(), OpError> {
        let flushed = match self.flush_now(fh) {
            Some(done) => done,
            // A program that was started closes what it has inherited: that saves nothing of what others write.
            None if !self.has_used(fh, pid) => Ok(()),
            None if self.nodes.with(|table| table.due(fh, Moment::Flush)) => {
                self.flush(fh, Moment::Flush).await
            }
            // Created or truncated and not written: a shell closes a first descriptor before it writes to a
            // second one, anybody else is done with it.
            None if self.stays_open(id, pid) => Ok(()),
            None => self.flush(fh, Moment::Release).await,
        };
        if self.has_locks(owner) {
            self.unlock_surely(id, owner, None).await?;
        }
        flushed
    }

    /// The last close: what is still to be put is put now, and nobody hears of errors. The locks of an open file
    /// end with it.
    pub(crate) async fn release(self: FsRef, id: NodeId, fh: Fh, owner: Option<Owner>) {
        if let Some((key, _)) = self.nodes.with(|table| table.writer_key(fh)) {
            let _turn: Turn = self.turn(&key).await;
            if let Err(error) = self.put_if_due(fh, Moment::Release).await {
                tracing::warn!(key = %key.escape_ascii(), %error, "not saved at close");
            }
            self.nodes.with(|table| table.abandon_pending(fh, &key));
        }
        if let Some(owner) = owner
            && let Err(error) = self.unlock_surely(id, owner, None).await
        {
            tracing::warn!(%error, "a lock ends with its session, not with its file");
        }
        self.release_now(fh);
    }

    /// True iff a handle may be released without putting anything.
    pub(crate) fn may_release_now(&self, fh: Fh) -> bool {
        self.nodes.with(|table| !table.due(fh, Moment::Release) && table.writer_key(fh).is_none())
    }

    pub(crate) fn release_now(self: &FsRef, fh: Fh) {
        if self.release_virtual(fh) {
            return;
        }
        if let Some(key) = self.nodes.with(|table| table.release(fh)) {
            self.scratch_closed(key);
        }
    }

    /// ftruncate(2) and open(2)'s own truncation, on an open writer.
    pub(crate) async fn truncate_handle(&self, fh: Fh, len: u64) -> Result<(), OpError> {
        self.check_len(len)?;
        let (key, _) = self.nodes.with(|table| table.writer_key(fh)).ok_or(OpError::BadHandle)?;
        let _turn: Turn = self.turn(&key).await;
        if self.nodes.with(|table| table.writer(fh)).is_some_and(|writer| writer.edits.has_tail()) {
            // What comes after it will be waited for.
            let _later = self.put_if_due(fh, Moment::Fsync).await?;
        }
        let now = self.time_of_unsaved();
        self.nodes.with(|table| table.truncate_writer(fh, len, now));
        Ok(())
    }

    pub(crate) fn open_how(flags: i32) -> OpenHow {
        OpenHow::from_flags(flags)
    }
}

#[cfg(test)]
mod tests;
