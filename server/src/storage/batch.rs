//! Changes of rows that belong together.
//!
//! A batch is what one log entry does to the image. The image joins many into
//! one before it hands them to the engine; a later change of a row wins.

use bytes::Bytes;

/// Row changes in order, and how far the state is once they are in.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Index of the newest log entry whose changes are in here or before.
    pub applied_index: u64,
    /// Newest revision of the store with these changes.
    pub revision: i64,
    ops: Vec<(Bytes, Option<Bytes>)>,
    bytes: usize,
}

/// What one change holds in memory beside its bytes: two handles and a tag.
const OP_OVERHEAD_BYTES: usize = 64;

impl Batch {
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len() + OP_OVERHEAD_BYTES;
        self.ops.push((key, Some(value)));
    }

    pub fn delete(&mut self, key: Bytes) {
        self.bytes += key.len() + OP_OVERHEAD_BYTES;
        self.ops.push((key, None));
    }

    /// Moves the changes of `later` to the end of this batch.
    pub fn append(&mut self, later: &mut Self) {
        self.ops.append(&mut later.ops);
        self.bytes += std::mem::take(&mut later.bytes);
        // A batch of housekeeping carries neither index nor revision.
        self.applied_index = self.applied_index.max(later.applied_index);
        self.revision = self.revision.max(later.revision);
    }

    /// Row changes in order; `None` deletes.
    pub fn ops(&self) -> &[(Bytes, Option<Bytes>)] {
        &self.ops
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// About how much memory the changes hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appended_batch_comes_later_and_empties_its_source() {
        let mut first = Batch { applied_index: 4, revision: 9, ..Batch::default() };
        first.put("a".into(), "1".into());
        let mut later = Batch::default();
        later.delete("a".into());
        let sum = first.bytes() + later.bytes();
        first.append(&mut later);
        assert_eq!(first.ops(), [("a".into(), Some("1".into())), ("a".into(), None)]);
        assert_eq!((first.applied_index, first.revision, first.bytes()), (4, 9, sum));
        assert!(later.is_empty() && later.bytes() == 0);
    }
}
