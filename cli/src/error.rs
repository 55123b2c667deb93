//! What went wrong, for a person and for a script: a message, what may help,
//! and the exit code that etcdctl gives for it.

use std::{io, process::ExitCode};

use etcfs_client::{ClientError, Code, Lost, Outcome, Unsent};

/// The kinds of failure; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request failed.
    Failed,
    /// The server could not be spoken to in time on a stream, or did not let us in.
    Connection,
    /// What was read from standard input makes no sense.
    Input,
    /// This is not offered: a format, an order, a feature.
    Feature,
    /// The server ended what was meant to go on.
    Interrupted,
    /// The arguments make no sense.
    Arguments,
    /// The reader of our output has gone; that is no failure.
    BrokenPipe,
}

impl Kind {
    fn exit_code(self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed => 1,
            Self::Connection => 2,
            Self::Input => 3,
            Self::Feature => 4,
            Self::Interrupted => 5,
            Self::Arguments => 128,
        }
    }
}

#[derive(Debug)]
pub(crate) struct CliError {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl CliError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    pub(crate) fn arguments(message: impl Into<String>) -> Self {
        Self::new(Kind::Arguments, message)
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, told in the words of a command.
    #[must_use]
    pub(crate) fn reworded(mut self, kind: Kind, reword: impl FnOnce(&str) -> String) -> Self {
        self.message = reword(&self.message);
        self.kind = kind;
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.kind != Kind::BrokenPipe {
            anstream::eprintln!("\x1b[1;31mError:\x1b[0m {}", self.message);
            if let Some(hint) = &self.hint {
                anstream::eprintln!("\x1b[1mHint:\x1b[0m {hint}");
            }
        }
        ExitCode::from(self.kind.exit_code())
    }
}

/// Answers a command line that clap did not take, or a call for help.
pub(crate) fn refused(error: &clap::Error) -> ExitCode {
    // A closed standard error leaves nobody to tell.
    drop(error.print());
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::Endpoint { .. } | ClientError::Tls(_) => return Self::arguments(error.to_string()),
            ClientError::Unsent(Unsent::Connect { .. } | Unsent::Deadline(_)) => {
                Some("is a server running there? `etcfs up DIR` starts one, --endpoints names others")
            }
            ClientError::Unsent(Unsent::Login { .. }) => {
                return Self::new(Kind::Connection, error.to_string()).hint("check --user and the password");
            }
            ClientError::Unsent(Unsent::Returned(_)) => None,
            ClientError::Unknown(Lost::Broken(_) | Lost::Deadline(_)) => {
                Some("a write may have been carried out: look before you repeat it")
            }
            ClientError::Status { code, message } => hint_for(*code, message, error.outcome()),
            ClientError::Compacted { .. } => Some("begin at a later --rev, or without"),
            ClientError::WatchCanceled { .. } | ClientError::LeaseGone { .. } => None,
        };
        Self { kind: Kind::Failed, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}

/// What a server says, and what to do then.
const HINTS: [(&str, &str); 10] = [
    ("required revision has been compacted", "history up to there is gone; ask for a later revision"),
    ("database space exceeded", "delete keys or compact to make room, then disarm the alarm"),
    ("permission denied", "`etcfs whoami` shows our roles and which keys they let us read and write"),
    ("user name is empty", "name a user by --user, with the password in ETCFS_PASSWORD"),
    ("requested lease not found", "it has ended or never was; `etcfs lease list` shows those that live"),
    ("request is too large", "the server takes 1.5 MiB unless its --max-request-bytes says otherwise"),
    ("trying to send message larger than max", "--max-request-bytes is our own bound"),
    (
        "no leader",
        "too few members reach each other: see `etcfs endpoint health --cluster`; look before you repeat a write",
    ),
    (
        "unhealthy cluster",
        "a member is down or not up for long: see `etcfs endpoint health --cluster`, then again",
    ),
    (
        "duplicate key given in txn request",
        "one transaction changes a key once: put the others into a second one",
    ),
];

fn hint_for(code: Code, message: &str, outcome: Outcome) -> Option<&'static str> {
    if let Some((_, hint)) = HINTS.iter().find(|(words, _)| message.contains(words)) {
        return Some(hint);
    }
    match code {
        Code::Unimplemented => Some("this server does not offer that request"),
        Code::Unavailable if outcome == Outcome::Unknown => {
            Some("the server may still carry a write out: look before you repeat it")
        }
        _ => None,
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::BrokenPipe } else { Kind::Failed };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_etcdctls() {
        assert_eq!(CliError::arguments("x").kind.exit_code(), 128);
        assert_eq!(Kind::Feature.exit_code(), 4);
        assert_eq!(Kind::Interrupted.exit_code(), 5);
        let login = Unsent::Login { endpoint: "a:1".into(), reason: "x".into() };
        assert_eq!(CliError::from(ClientError::Unsent(login)).kind.exit_code(), 2);
        assert_eq!(CliError::from(ClientError::LeaseGone { id: 1 }).kind.exit_code(), 1);
    }

    #[test]
    fn what_a_server_refuses_comes_with_a_hint() {
        // In etcd's words.
        for (code, message, wanted) in [
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", "a later revision"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "disarm the alarm"),
            (Code::PermissionDenied, "etcdserver: permission denied", "etcfs whoami"),
            (Code::InvalidArgument, "etcdserver: user name is empty", "--user"),
            (Code::NotFound, "etcdserver: requested lease not found", "etcfs lease list"),
            (Code::InvalidArgument, "etcdserver: request is too large", "1.5 MiB"),
            (Code::ResourceExhausted, "trying to send message larger than max (9 vs. 5)", "our own bound"),
            (Code::Unavailable, "etcdserver: no leader", "look before you repeat"),
            (Code::Unavailable, "etcdserver: unhealthy cluster", "etcfs endpoint health --cluster"),
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request", "a second one"),
            (Code::Unimplemented, "unknown service", "does not offer"),
        ] {
            let error = CliError::from(ClientError::Status { code, message: message.to_owned() });
            assert!(error.hint.as_ref().is_some_and(|hint| hint.contains(wanted)), "{message}: {error:?}");
        }
    }

    #[test]
    fn a_lost_answer_warns_against_repeating() {
        let error = CliError::from(ClientError::Unknown(Lost::Broken("reset".into())));
        assert!(error.hint.unwrap().contains("look before you repeat"));
    }
}
