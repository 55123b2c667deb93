//! Writes files into a directory or an archive; only a whole archive gets its name.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use tempfile::NamedTempFile;

use super::Place;
use crate::error::CliError;

pub(crate) enum Sink {
    Dir(PathBuf),
    Tar { archive: Box<tar::Builder<NamedTempFile>>, path: PathBuf, now: u64 },
    Pipe { archive: Box<tar::Builder<io::Stdout>>, now: u64 },
}

impl Sink {
    /// Begins to write; a directory has to be empty, or not there yet.
    pub(crate) fn new(place: Place) -> Result<Self, CliError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match place {
            Place::Dir(path) => {
                let failed = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
                fs::create_dir_all(&path).map_err(failed)?;
                if fs::read_dir(&path).map_err(failed)?.next().is_some() {
                    return Err(CliError::failed(format!("{} is not empty", path.display()))
                        .hint("files of its own would look like keys; name another directory, or FILE.tar"));
                }
                Ok(Self::Dir(path))
            }
            Place::Tar(path) => {
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let file = NamedTempFile::new_in(dir)
                    .map_err(|error| CliError::failed(format!("{}: {error}", dir.display())))?;
                Ok(Self::Tar { archive: Box::new(tar::Builder::new(file)), path, now })
            }
            Place::Pipe => Ok(Self::Pipe { archive: Box::new(tar::Builder::new(io::stdout())), now }),
        }
    }

    pub(crate) fn write(&mut self, path: &Path, value: &[u8]) -> Result<(), CliError> {
        let written = match self {
            Self::Dir(root) => write_file(&root.join(path), value),
            Self::Tar { archive, now, .. } => append(archive, path, value, *now),
            Self::Pipe { archive, now } => append(archive, path, value, *now),
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => error.into(),
            _ => CliError::failed(format!("{}: {error}", path.display())),
        })
    }

    pub(crate) fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Dir(_) => {}
            Self::Tar { archive, path, .. } => {
                let file = archive.into_inner()?;
                file.as_file().sync_all()?;
                file.persist(path).map_err(|error| error.error)?;
            }
            Self::Pipe { archive, .. } => archive.into_inner()?.flush()?,
        }
        Ok(())
    }
}

fn write_file(path: &Path, value: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, value)
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &Path, value: &[u8], now: u64) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(now);
    header.set_size(value.len() as u64);
    archive.append_data(&mut header, path, value)
}
