//! What went wrong, for a person and for a script: a message, what may help,
//! and the exit code that etcdctl gives for it.

use std::{io, process::ExitCode};

use etcfs_client::{ClientError, Code, Lost, Outcome, Unsent};

/// The kinds of failure; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request failed.
    Failed,
    /// The server could not be spoken to in time on a stream.
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
            ClientError::Unsent(Unsent::Login { .. }) => Some("check --user and the password"),
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

fn hint_for(code: Code, message: &str, outcome: Outcome) -> Option<&'static str> {
    match code {
        Code::Unimplemented => Some("this server does not offer that request"),
        Code::OutOfRange if message.contains("compacted") => {
            Some("history up to there is gone; ask for a later revision")
        }
        Code::ResourceExhausted if message.contains("space exceeded") => {
            Some("delete keys or compact to make room, then disarm the alarm")
        }
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
        assert_eq!(CliError::from(ClientError::LeaseGone { id: 1 }).kind.exit_code(), 1);
    }

    #[test]
    fn a_lost_answer_warns_against_repeating() {
        let error = CliError::from(ClientError::Unknown(Lost::Broken("reset".into())));
        assert!(error.hint.unwrap().contains("look before you repeat"));
    }
}
