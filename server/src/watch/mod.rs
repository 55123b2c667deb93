//! Watchers: who wants to know of which keys, from which revision on.
//!
//! A watcher is synced while it needs nothing but what comes: then [`hub`]
//! finds it by key or range ([`group`], [`ranges`]) and queues the event on its
//! stream ([`outbox`]). One that starts in the past, or whose stream is full,
//! lags: [`catchup`] reads the store for it until it has caught up. Either way
//! it gets each revision once, whole and in order, and [`progress`] never
//! claims more than has been queued before it.

mod catchup;
mod group;
mod hub;
mod outbox;
mod progress;
mod ranges;
mod registry;
mod stream;
mod watcher;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod model;

pub use hub::{Hub, HubMetrics, HubOptions};
pub use stream::{WatchControl, WatchStream};
