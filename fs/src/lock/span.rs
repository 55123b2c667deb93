//! Ranges of bytes of a file, and which of them one owner has in which mode.

/// How a range is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// Bytes `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    pub(crate) fn meets(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// What one owner has of a file: disjoint, in order, none adjacent to one of the same mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<(Span, Mode)>);

impl Spans {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Span, Mode)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the mode of a range, or unlocks it, whatever it was before.
    pub(crate) fn set(&mut self, span: Span, mode: Option<Mode>) {
        let mut parts = Vec::with_capacity(self.0.len() + 2);
        for &(old, had) in &self.0 {
            if !old.meets(span) {
                parts.push((old, had));
                continue;
            }
            if old.start < span.start {
                parts.push((Span { start: old.start, end: span.start - 1 }, had));
            }
            if old.end > span.end {
                parts.push((Span { start: span.end + 1, end: old.end }, had));
            }
        }
        parts.extend(mode.map(|mode| (span, mode)));
        parts.sort_unstable_by_key(|(span, _)| span.start);
        self.0.clear();
        for (span, mode) in parts {
            match self.0.last_mut() {
                Some((last, of_last)) if *of_last == mode && last.end.checked_add(1) == Some(span.start) => {
                    last.end = span.end;
                }
                _ => self.0.push((span, mode)),
            }
        }
    }

    /// The first range that keeps another owner from having `span` in `mode`.
    pub(crate) fn conflict(&self, span: Span, mode: Mode) -> Option<(Span, Mode)> {
        self.iter()
            .find(|&(held, had)| held.meets(span) && (had == Mode::Exclusive || mode == Mode::Exclusive))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 24;

    fn mode() -> impl Strategy<Value = Option<Mode>> {
        prop_oneof![Just(None), Just(Some(Mode::Shared)), Just(Some(Mode::Exclusive))]
    }

    proptest! {
        #[test]
        fn spans_are_what_each_byte_was_set_to_last(
            steps in prop::collection::vec((0..BYTES, 0..BYTES, mode()), 0..20)
        ) {
            let mut spans = Spans::default();
            let mut bytes = [None; BYTES as usize];
            for (a, b, mode) in steps {
                let span = Span { start: a.min(b), end: a.max(b) };
                spans.set(span, mode);
                bytes[span.start as usize..=span.end as usize].fill(mode);
            }
            for (at, &mode) in bytes.iter().enumerate() {
                let at = Span { start: at as u64, end: at as u64 };
                let held = spans.iter().find(|(span, _)| span.meets(at)).map(|(_, mode)| mode);
                prop_assert_eq!(held, mode);
                prop_assert_eq!(spans.conflict(at, Mode::Exclusive).is_some(), mode.is_some());
                prop_assert_eq!(spans.conflict(at, Mode::Shared).is_some(), mode == Some(Mode::Exclusive));
            }
            let parts: Vec<_> = spans.iter().collect();
            let in_order = parts.windows(2).all(|pair| {
                pair[0].0.end < pair[1].0.start
                    && (pair[0].0.end + 1 < pair[1].0.start || pair[0].1 != pair[1].1)
            });
            prop_assert!(in_order, "{:?}", parts);
        }
    }

    #[test]
    fn the_whole_file_can_be_locked_and_let_go() {
        let whole = Span { start: 0, end: u64::MAX };
        let mut spans = Spans::default();
        spans.set(whole, Some(Mode::Exclusive));
        spans.set(Span { start: 5, end: 9 }, None);
        assert_eq!(spans.iter().count(), 2);
        spans.set(whole, None);
        assert!(spans.is_empty());
    }
}
