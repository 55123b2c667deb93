//! What was found, a line each, and what it comes to.

use etcfs_client::{ClientError, Code};

use crate::error::CliError;

#[derive(Debug, Default)]
pub(super) struct Findings {
    broken: u32,
    odd: u32,
}

impl Findings {
    pub(super) fn good(&mut self, what: impl AsRef<str>) {
        anstream::println!("\x1b[32mok\x1b[0m    {}", what.as_ref());
    }

    /// Works, but should not stay so.
    pub(super) fn odd(&mut self, what: impl AsRef<str>, remedy: &str) {
        self.odd += 1;
        anstream::println!("\x1b[33mwarn\x1b[0m  {}\n      -> {remedy}", what.as_ref());
    }

    pub(super) fn broken(&mut self, what: impl AsRef<str>, remedy: &str) {
        self.broken += 1;
        anstream::println!("\x1b[31mFAIL\x1b[0m  {}\n      -> {remedy}", what.as_ref());
    }

    /// A question that the servers did not answer.
    pub(super) fn refused(&mut self, what: &str, error: ClientError) {
        match error {
            ClientError::Status { code: Code::PermissionDenied | Code::Unauthenticated, message } => {
                self.odd(format!("{what}: {message}"), "ask as a user who may (the role root may all)");
            }
            error => self.broken(format!("{what}: {error}"), "see the servers' logs"),
        }
    }

    pub(super) fn verdict(&self) -> Result<(), CliError> {
        let count =
            |number: u32, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        match (self.broken, self.odd) {
            (0, 0) => anstream::println!("All is well."),
            (0, odd) => anstream::println!("It works, with {}.", count(odd, "warning")),
            (broken, odd) => {
                let told = format!("{} and {}", count(broken, "failure"), count(odd, "warning"));
                return Err(CliError::failed(told));
            }
        }
        Ok(())
    }
}
