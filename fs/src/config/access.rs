//! Who a mount is towards its servers, and whom it trusts there: what the options name, read from where it is.
//!
//! A password comes from a file or from the environment and never from the command line, which everybody on the
//! machine can read.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use etcfs_client::{Credentials, PasswordSource, Tls};

use super::Access;

/// A user's name, a colon and the password.
pub(crate) const USER_VARIABLE: &str = "ETCFS_USER";

/// Why a mount does not know who it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} line {line}: `username=NAME` and `password=WORD` are what it may hold", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("{} has no line `{name}=`", path.display())]
    Missing { path: PathBuf, name: &'static str },
    #[error("{USER_VARIABLE} needs a name, a colon and a password")]
    Variable,
}

/// Reads what `access` names; the environment's user where it names none.
pub(crate) fn read(
    access: &Access,
    endpoints: &[String],
) -> Result<(Option<Tls>, Option<Credentials>), AccessError> {
    let credentials = match (&access.credentials, env::var(USER_VARIABLE)) {
        (Some(path), _) => Some(at(path)?),
        (None, Ok(user)) => Some(of_variable(&user)?),
        (None, Err(_)) => None,
    };
    let is_secure = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let tls = is_secure.then(|| Tls {
        ca: access.ca.clone(),
        identity: access.identity.clone(),
        skip_verify: false,
    });
    Ok((tls, credentials))
}

/// The password that the file of `access` has for `user` at the time of a login.
pub(crate) fn password(access: &Access, user: &str) -> Option<PasswordSource> {
    let (path, user) = (access.credentials.clone()?, user.to_owned());
    Some(PasswordSource::new(move || newer(&path, &user)))
}

fn newer(path: &Path, user: &str) -> Option<String> {
    let trouble = match at(path) {
        Ok(found) if found.user == user => return Some(found.password),
        Ok(_) => "the file of credentials is another user's by now".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(trouble, "logging in with the password that the mount began with");
    None
}

fn at(path: &Path) -> Result<Credentials, AccessError> {
    let unreadable = |error| AccessError::Unreadable { path: path.to_owned(), error };
    of_file(path, &fs::read_to_string(path).map_err(unreadable)?)
}

/// Two lines, as mount.cifs(8) has them.
fn of_file(path: &Path, text: &str) -> Result<Credentials, AccessError> {
    let (mut user, mut password) = (None, None);
    for (at, line) in text.lines().enumerate() {
        match line.split_once('=') {
            Some(("username", name)) => user = Some(name.to_owned()),
            Some(("password", word)) => password = Some(word.to_owned()),
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => return Err(AccessError::Line { path: path.to_owned(), line: at + 1 }),
        }
    }
    let missing = |name| AccessError::Missing { path: path.to_owned(), name };
    Ok(Credentials {
        user: user.ok_or_else(|| missing("username"))?,
        password: password.ok_or_else(|| missing("password"))?,
    })
}

fn of_variable(text: &str) -> Result<Credentials, AccessError> {
    let (user, password) = text.split_once(':').ok_or(AccessError::Variable)?;
    Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_name_and_a_password() {
        let read = |text: &str| of_file(Path::new("/f"), text);
        let found = read("# comment\nusername=ann\npassword=a=b c\n\n").unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("ann", "a=b c"));
        assert!(matches!(read("username=ann\n"), Err(AccessError::Missing { name: "password", .. })));
        assert!(matches!(read("password=x\n"), Err(AccessError::Missing { name: "username", .. })));
        let error = read("username=ann\nsecret\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_password_is_the_files_as_long_as_it_is_the_same_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        assert_eq!(newer(&path, "ann"), None);
        fs::write(&path, "username=ann\npassword=new\n").unwrap();
        assert_eq!(newer(&path, "ann").as_deref(), Some("new"));
        assert_eq!(newer(&path, "bob"), None);
    }

    #[test]
    fn a_variable_holds_a_name_a_colon_and_a_password() {
        let found = of_variable("ann:a:b").unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("ann", "a:b"));
        assert!(matches!(of_variable("ann"), Err(AccessError::Variable)));
    }

    #[test]
    fn tls_is_for_those_who_are_asked_by_it() {
        let access = Access { ca: Some("/ca".into()), ..Access::default() };
        let tls = |endpoint: &str| read(&access, &[endpoint.to_owned()]).unwrap().0;
        assert_eq!(tls("http://h:1"), None);
        assert_eq!(tls("https://h:1").and_then(|tls| tls.ca), Some("/ca".into()));
    }
}
