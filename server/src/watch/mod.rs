//! Watchers: who wants to know of which keys, from which revision on.
pub mod hub;

pub use hub::{Hub, HubMetrics, HubOptions, WatchControl, WatchStream};
