//! etcfsd: parses and calls `run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    etcfs_server::process::main()
}
