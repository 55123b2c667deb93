//! Paths in a mount as names of keys: `./keys/a/b`, where `keys` is mounted, is the key that `keys/a/b` shows.
//!
//! Only what begins with `./` or `../` and lies in a mount is taken for a path, so that no other key is ever read as
//! one. The mount itself is not asked: its source and the map of paths to keys say it. A path need not exist.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use etcfs_fs::{
    config::Source,
    map::{KeyMap, Percent, Rel, Step},
    mounts, source,
};

use crate::error::CliError;

/// What a path in a mount stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) key: OsString,
    /// Those that the mount talks to.
    pub(crate) endpoints: Vec<String>,
}

/// The key of an argument that is a path; `None` for one that is a key. `scheme` is that of servers without one.
pub(crate) fn resolve(argument: &OsStr, scheme: &str) -> Result<Option<Mounted>, CliError> {
    if !["./", "../"].iter().any(|start| argument.as_bytes().starts_with(start.as_bytes())) {
        return Ok(None);
    }
    let Some(path) = real(Path::new(argument)) else { return Ok(None) };
    let mount = path.ancestors().find_map(|point| Some((point, mounts::at(point)?)));
    let Some((point, mount)) = mount else { return Ok(None) };
    let Some(source) = source_of(&mount, scheme) else { return Ok(None) };
    let shown = argument.display();
    let inside = path.strip_prefix(point).expect("it is an ancestor");
    let mut key = key(&source.prefix, inside)
        .map_err(|reason| CliError::arguments(format!("{shown} is the path of no key: {reason}")))?;
    // As a directory, for `--prefix`.
    if argument.as_bytes().ends_with(b"/") && !key.is_empty() && !key.ends_with(b"/") {
        key.push(b'/');
    }
    Ok(Some(Mounted { key: OsString::from_vec(key), endpoints: source.endpoints }))
}

/// What a mount shows, if it is one of ours. Only who mounts by fusermount3 has the longer name.
pub(crate) fn source_of(mount: &mounts::Mounted, scheme: &str) -> Option<Source> {
    ["fuse.etcfs", "fuse"].contains(&mount.kind.as_str()).then(|| source(&mount.source, scheme).ok())?
}

/// The path without links, as far as it exists, and without dots; `None` if there are some past that.
fn real(path: &Path) -> Option<PathBuf> {
    let mut rest: Vec<&OsStr> = Vec::new();
    for exists in path.ancestors() {
        let exists = if exists.as_os_str().is_empty() { Path::new(".") } else { exists };
        match fs::canonicalize(exists) {
            Ok(real) => return Some(rest.iter().rev().fold(real, |path, name| path.join(name))),
            Err(_) => rest.push(exists.file_name()?),
        }
    }
    None
}

/// The key that a path below a mount of `prefix` names.
fn key(prefix: &bytes::Bytes, path: &Path) -> Result<Vec<u8>, String> {
    let map = KeyMap::new(prefix.clone(), Percent::Strict, Rel::Dir);
    let mut dir = map.root();
    let mut key = dir.prefix().expect("a mount's root is whole").to_vec();
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        let shown = name.display();
        match map.step(&dir, name).map_err(|reason| format!("`{shown}`: {reason}"))? {
            Step::Entry(entry) => {
                key = entry.key.to_vec();
                dir = entry.dir;
            }
            Step::Value(own) if names.peek().is_none() => key = own.to_vec(),
            Step::Rel(bare) => {
                key = Vec::new();
                dir = bare;
            }
            Step::More(part) => dir = part,
            Step::Value(_) | Step::Reserved(_) => return Err(format!("`{shown}` is no key")),
        }
    }
    if dir.is_more() {
        return Err("a component goes on after `%more`".to_owned());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(prefix: &'static str, path: &str) -> Result<String, String> {
        let key = super::key(&prefix.into(), Path::new(path))?;
        Ok(String::from_utf8(key).unwrap())
    }

    #[test]
    fn a_path_is_the_key_that_it_shows() {
        for (prefix, path, expected) in [
            ("/", "a/b", "/a/b"),
            ("/project/", "a", "/project/a"),
            ("/project/", "", "/project/"),
            ("/", "a/%value", "/a"),
            ("/", "a/%empty/b", "/a//b"),
            ("/", "50%25", "/50%"),
            ("/", "%rel/name", "name"),
            ("", "name", "name"),
        ] {
            assert_eq!(key(prefix, path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["50%", "%log", "a/%log", "a/%value/b", "%rev/7/a", "x%more"] {
            assert!(key("/", path).is_err(), "{path}");
        }
        assert!(key("/project/", "%rel/name").is_err(), "only a mount of all keys has it");
    }

    #[test]
    fn what_does_not_begin_with_a_dot_and_a_slash_is_a_key() {
        for name in ["/a", "a", "", ".", "..", ".a/b", "/./a"] {
            assert_eq!(resolve(OsStr::new(name), "http").unwrap(), None, "{name}");
        }
        for name in ["./x", "./no/such/x", "./no/../x"] {
            assert_eq!(resolve(OsStr::new(name), "http").unwrap(), None, "no mount is here: {name}");
        }
    }
}
