//! `etcfs completion`

use std::io;

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::Arguments;

/// Prints a script that teaches a shell to complete this command line.
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell that is to read it
    shell: Shell,
}

pub(crate) fn run(args: &CompletionArgs) {
    generate(args.shell, &mut Arguments::command(), "etcfs", &mut io::stdout());
}
