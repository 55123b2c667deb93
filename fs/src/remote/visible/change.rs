//! A change of keys of which some may be read: what of it the server is asked for, and the answer that comes of that.

use etcfs_proto::key::KeyRange;

use super::{ALWAYS, Inner, Rights, record};
use crate::remote::{
    Answer, Change, Committed, Compare, Freshness, Move, Op, Page, PageRequest, RemoteError,
};

/// How the answers to a change's operation come of those to what was sent for it.
enum Answered {
    AsSent,
    Here(Answer),
    /// By so many reads of parts.
    InParts {
        count: usize,
        range: KeyRange,
        limit: u32,
    },
}

/// A change as the server is to carry it out.
struct Narrowed {
    /// `None`: one of its compares fails by what is kept here.
    sent: Option<Change>,
    then: Vec<Answered>,
    otherwise: Vec<Answered>,
}

impl Inner {
    pub(super) async fn commit(&self, rights: &Rights, change: &Change) -> Result<Committed, RemoteError> {
        let Narrowed { sent, then, otherwise } = self.narrowed(rights, change)?;
        let Some(sent) = sent else {
            let mut answers = Vec::with_capacity(change.otherwise.len());
            for op in &change.otherwise {
                answers.push(self.read(rights, op).await?);
            }
            return Ok(Committed { revision: self.server.heard(), succeeded: false, answers });
        };
        let Committed { revision, succeeded, answers } = self.server.commit(sent).await?;
        let mut came = answers.into_iter();
        let branch = if succeeded { then } else { otherwise };
        let answers = branch.into_iter().map(|answered| match answered {
            Answered::AsSent => {
                came.next().ok_or(RemoteError::Protocol("fewer answers than there were questions"))
            }
            Answered::Here(answer) => Ok(answer),
            Answered::InParts { count, range, limit } => {
                let keys = came.by_ref().take(count).flat_map(|answer| match answer {
                    Answer::Keys(keys) => keys,
                    Answer::Done | Answer::Got(_) => Vec::new(),
                });
                let mut page = Page { kvs: keys.map(|key| record(&key)).collect(), more: false };
                page.kvs.sort_by(|one, two| one.key.cmp(&two.key));
                self.add_fixed(&range, limit, &mut page);
                Ok(Answer::Keys(page.kvs.into_iter().map(|kv| kv.key).collect()))
            }
        });
        Ok(Committed { revision, succeeded, answers: answers.collect::<Result<_, _>>()? })
    }

    fn narrowed(&self, rights: &Rights, change: &Change) -> Result<Narrowed, RemoteError> {
        let mut holds = true;
        let mut compares = Vec::with_capacity(change.compares.len());
        for compare in &change.compares {
            match compare {
                Compare::Absent(key) if self.is_fixed(key) => holds = false,
                Compare::Present(key) if self.is_fixed(key) => {}
                Compare::Unchanged(key, revision) | Compare::SameSince(key, revision)
                    if self.is_fixed(key) =>
                {
                    holds &= *revision == ALWAYS;
                }
                Compare::Absent(_)
                | Compare::Present(_)
                | Compare::Unchanged(..)
                | Compare::SameSince(..) => {
                    compares.push(compare.clone());
                }
                Compare::NothingIn(range) => {
                    holds &= self.fixed(range).next().is_none();
                    compares.extend(rights.parts(range)?.into_iter().map(Compare::NothingIn));
                }
                Compare::NotPutSince(range, revision) => {
                    let since = |part| Compare::NotPutSince(part, *revision);
                    compares.extend(rights.parts(range)?.into_iter().map(since));
                }
            }
        }
        let mut sent = Change { compares, ..Change::default() };
        let then = self.narrowed_branch(rights, &change.then, &mut sent.then)?;
        let otherwise = self.narrowed_branch(rights, &change.otherwise, &mut sent.otherwise)?;
        Ok(Narrowed { sent: holds.then_some(sent), then, otherwise })
    }

    fn narrowed_branch(
        &self,
        rights: &Rights,
        branch: &[Op],
        sent: &mut Vec<Op>,
    ) -> Result<Vec<Answered>, RemoteError> {
        let mut answered = Vec::with_capacity(branch.len());
        for op in branch {
            let stays = match op {
                Op::Put { key, .. } | Op::Attach { key, .. } | Op::Delete(key) => self.is_fixed(key),
                Op::DeleteRange(range) => self.fixed(range).next().is_some(),
                Op::Move(Move { from, to, .. }) => {
                    [from, to].iter().any(|prefix| self.fixed(&KeyRange::prefix(prefix)).next().is_some())
                }
                Op::Get(_) | Op::Keys { .. } => false,
            };
            if stays {
                return Err(RemoteError::PermissionDenied);
            }
            answered.push(match op {
                Op::Get(key) if self.is_fixed(key) => Answered::Here(Answer::Got(Some(record(key)))),
                Op::Keys { range, limit } => {
                    let parts = rights.parts(range)?;
                    let count = parts.len();
                    sent.extend(parts.into_iter().map(|range| Op::Keys { range, limit: *limit }));
                    Answered::InParts { count, range: range.clone(), limit: *limit }
                }
                op => {
                    sent.push(op.clone());
                    Answered::AsSent
                }
            });
        }
        Ok(answered)
    }

    /// What a change reads where it is not made.
    async fn read(&self, rights: &Rights, op: &Op) -> Result<Answer, RemoteError> {
        let how = Freshness::Linearizable;
        Ok(match op {
            Op::Get(key) => Answer::Got(self.get(rights, key, how).await?.found),
            Op::Keys { range, limit } => {
                let request = PageRequest { range: range.clone(), limit: *limit, keys_only: true, how };
                let page = self.page(rights, &request).await?;
                Answer::Keys(page.found.kvs.into_iter().map(|kv| kv.key).collect())
            }
            Op::Put { .. } | Op::Attach { .. } | Op::Delete(_) | Op::DeleteRange(_) | Op::Move(_) => {
                Answer::Done
            }
        })
    }
}
