//! `etcfs mount`: what mount.etcfs does, as a command.

use std::{ffi::OsString, process::ExitCode};

use clap::Args;

/// Mounts the keys of a server at a directory: SOURCE DIR [-o OPTIONS].
///
/// Takes what mount.etcfs(8) takes; `etcfs mount -- --help` lists its options.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs mount 127.0.0.1:2379:/project /mnt")]
pub(crate) struct MountArgs {
    /// SOURCE DIR [-o OPTIONS]: ENDPOINT[,ENDPOINT...][:PREFIX] and where to mount it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    args: Vec<OsString>,
}

/// Mounts and, once that is done, returns. Call it before there is any thread.
pub(crate) fn run(args: MountArgs) -> ExitCode {
    let arguments = args.args.into_iter().filter(|argument| argument != "--");
    etcfs_fs::main_with([OsString::from(etcfs_fs::AS_COMMAND)].into_iter().chain(arguments))
}
