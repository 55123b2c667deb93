//! What is made of files, and made anew when they change.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::{TlsError, files};
use crate::config::Tls;

/// Files are looked at no more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A `T` of the settings' files; clones share it.
pub(super) struct Reloaded<T> {
    settings: Arc<Tls>,
    load: fn(&Tls) -> Result<T, TlsError>,
    /// Held for a few lines, and to read the files when they have changed.
    loaded: Arc<Mutex<Loaded<T>>>,
}

struct Loaded<T> {
    value: Arc<T>,
    /// When each file was written.
    written: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), load: self.load, loaded: self.loaded.clone() }
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<T> Reloaded<T> {
    pub(super) fn new(settings: &Tls, load: fn(&Tls) -> Result<T, TlsError>) -> Result<Self, TlsError> {
        // Looked at first: what is written while it is read is read again.
        let written = files::written(settings);
        let loaded = Loaded { value: Arc::new(load(settings)?), written, looked: Instant::now() };
        Ok(Self { settings: Arc::new(settings.clone()), load, loaded: Arc::new(Mutex::new(loaded)) })
    }

    pub(super) fn settings(&self) -> &Tls {
        &self.settings
    }

    /// The newest that can be used.
    pub(super) fn newest(&self) -> Arc<T> {
        let mut loaded = self.loaded.lock();
        if loaded.looked.elapsed() >= LOOK_INTERVAL {
            loaded.looked = Instant::now();
            self.look(&mut loaded);
        }
        loaded.value.clone()
    }

    fn look(&self, loaded: &mut Loaded<T>) {
        let written = files::written(&self.settings);
        if written == loaded.written {
            return;
        }
        match (self.load)(&self.settings) {
            Ok(value) => {
                tracing::info!("certificates have changed and are in use");
                (loaded.value, loaded.written) = (Arc::new(value), written);
            }
            // Perhaps one file of two is there already: what was good stays.
            Err(error) => tracing::warn!(%error, "certificates have changed and can't be used"),
        }
    }
}
