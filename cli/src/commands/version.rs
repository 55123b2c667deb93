//! `etcfs version`

use clap::Args;

use crate::error::CliError;

/// The API that client and server speak.
const API_VERSION: &str = "3.6";

/// Prints the version of etcfs.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs version")]
pub(crate) struct VersionArgs {}

pub(crate) fn run(_: &VersionArgs) -> Result<(), CliError> {
    anstream::println!("etcfs version: {}\nAPI version: {API_VERSION}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
