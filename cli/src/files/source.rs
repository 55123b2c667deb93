//! Reads files out of a directory or an archive, on a thread of its own: one after the other, in order of names.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use tokio::sync::mpsc;
use walkdir::WalkDir;

use super::Place;
use crate::error::CliError;

/// Files that are read ahead of whoever takes them.
const READ_AHEAD: usize = 32;

/// One file, by its path from the root on.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// None for what is neither file nor directory.
    pub(crate) content: Option<Vec<u8>>,
}

type Sender = mpsc::Sender<Result<Found, CliError>>;

/// Starts to read; the receiver ends after the last file or after an error.
pub(crate) fn read(place: Place) -> mpsc::Receiver<Result<Found, CliError>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let read = match &place {
            Place::Dir(root) => walk(root, &sender),
            Place::Tar(path) => File::open(path)
                .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))
                .and_then(|file| unpack(io::BufReader::new(file), &sender)),
            Place::Pipe => unpack(io::stdin().lock(), &sender),
        };
        if let Err(error) = read {
            // Whoever took the files is gone: nobody is left to tell.
            drop(sender.blocking_send(Err(error)));
        }
    });
    receiver
}

fn walk(root: &Path, sender: &Sender) -> Result<(), CliError> {
    for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| CliError::failed(error.to_string()))?;
        let kind = entry.file_type();
        if kind.is_dir() {
            continue;
        }
        let content = if kind.is_file() {
            let content = fs::read(entry.path());
            Some(content.map_err(|error| CliError::failed(format!("{}: {error}", entry.path().display())))?)
        } else {
            None
        };
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
        if sender.blocking_send(Ok(Found { path, content })).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn unpack(from: impl Read, sender: &Sender) -> Result<(), CliError> {
    let damaged = |error: io::Error| CliError::failed(format!("the archive can't be read: {error}"));
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(CliError::failed(format!("{}: leads out of the archive", path.display())));
        }
        let content = if kind.is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(damaged)?;
            Some(content)
        } else {
            None
        };
        if sender.blocking_send(Ok(Found { path, content })).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
