//! Keys as files, outside of a mount but with a mount's paths: where `export` writes them and `import` finds them.
//!
//! What is written is a directory or a tar archive that looks as `cp -r` of a mount would; what is read may be any.

pub(crate) mod sink;
pub(crate) mod source;

use std::path::{Path, PathBuf};

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Dir(PathBuf),
    Tar(PathBuf),
    /// A tar archive on standard output or from standard input.
    Pipe,
}

impl Place {
    pub(crate) fn new(word: PathBuf) -> Self {
        if word == Path::new("-") {
            Self::Pipe
        } else if word.extension().is_some_and(|extension| extension == "tar") {
            Self::Tar(word)
        } else {
            Self::Dir(word)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_by_its_name() {
        assert_eq!(Place::new("-".into()), Place::Pipe);
        assert_eq!(Place::new("a/b.tar".into()), Place::Tar("a/b.tar".into()));
        assert_eq!(Place::new("a.tar/".into()), Place::Tar("a.tar/".into()));
        assert_eq!(Place::new("tar".into()), Place::Dir("tar".into()));
    }
}
