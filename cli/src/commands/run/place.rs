//! The revision up to which the command has run, in a file.

use std::{fs, io, io::Write as _, path::PathBuf};

use tempfile::NamedTempFile;

use crate::error::CliError;

#[derive(Debug)]
pub(super) struct Place {
    file: Option<PathBuf>,
    known: bool,
}

impl Place {
    /// The place that a file remembers; without one it is forgotten.
    pub(super) fn at(file: Option<PathBuf>) -> Result<Self, CliError> {
        let mut place = Self { file, known: false };
        place.known = place.read()?.is_some();
        Ok(place)
    }

    /// Whether a place was read or written: then what comes later is told from there on.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    pub(super) fn read(&self) -> Result<Option<i64>, CliError> {
        let Some(file) = &self.file else { return Ok(None) };
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| CliError::failed(format!("{}: {error}", file.display())))?,
        };
        let revision = text.trim_end().parse().ok().filter(|&revision: &i64| revision >= 0);
        let damaged = || {
            CliError::failed(format!("{}: {text:?} is no revision", file.display()))
                .hint("remove the file to begin with changes from now on")
        };
        revision.ok_or_else(damaged).map(Some)
    }

    /// Replaces the file as a whole, so that it never holds half a number.
    pub(super) fn write(&mut self, revision: i64) -> Result<(), CliError> {
        self.known = true;
        let Some(file) = &self.file else { return Ok(()) };
        let replace = || {
            let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
            let mut new = NamedTempFile::new_in(dir.unwrap_or_else(|| ".".as_ref()))?;
            writeln!(new, "{revision}")?;
            new.as_file().sync_data()?;
            new.persist(file).map(drop).map_err(|error| error.error)
        };
        replace().map_err(|error| CliError::failed(format!("{}: {error}", file.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_and_a_damaged_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        let mut place = Place::at(Some(file.clone())).unwrap();
        assert!(!place.is_known());
        place.write(17).unwrap();
        assert!(place.is_known());
        assert_eq!(Place::at(Some(file.clone())).unwrap().read().unwrap(), Some(17));
        fs::write(&file, "seventeen\n").unwrap();
        assert!(Place::at(Some(file)).unwrap_err().message().contains("is no revision"));
    }
}
