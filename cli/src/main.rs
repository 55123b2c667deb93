//! `etcfs`: parse and run.

fn main() -> std::process::ExitCode {
    etcfs_cli::main()
}
