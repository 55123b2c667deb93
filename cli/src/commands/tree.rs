//! `etcfs tree`

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
    pages::{Pages, directory},
};

/// Shows all keys below a prefix as a tree, and counts them.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs tree /project")]
pub(crate) struct TreeArgs {
    /// The directory; without, every key
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// State at this revision; 0 for now
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
}

pub(crate) async fn run(global: &Global, args: TreeArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let prefix = directory(args::bytes(args.prefix));
    let mut pages = Pages::of(&client, &prefix, true, args.rev);
    let mut tree = Tree { out: io::stdout().lock(), output, open: Vec::new(), keys: 0, directories: 0 };
    while let Some(page) = pages.next().await? {
        for kv in page {
            tree.add(&kv.key[prefix.len()..])?;
        }
    }
    writeln!(tree.out, "\n{} keys in {} directories", tree.keys, tree.directories)?;
    Ok(tree.out.flush()?)
}

/// Keys come in order, so a directory is written when its first key comes and never again.
struct Tree<W> {
    out: W,
    output: Output,
    /// The directories that the last key lies in.
    open: Vec<Vec<u8>>,
    keys: usize,
    directories: usize,
}

impl<W: Write> Tree<W> {
    fn add(&mut self, key: &[u8]) -> io::Result<()> {
        let mut components: Vec<&[u8]> = key.split(|&byte| byte == b'/').collect();
        let name = components.pop().unwrap_or_default();
        let same = self.open.iter().zip(&components).take_while(|(open, new)| open == *new).count();
        self.open.truncate(same);
        for component in &components[same..] {
            self.line(&self.output.directory(component), "/")?;
            self.open.push(component.to_vec());
            self.directories += 1;
        }
        self.keys += 1;
        self.line(&self.output.key(name), "")
    }

    fn line(&mut self, shown: &[u8], end: &str) -> io::Result<()> {
        write!(self.out, "{}", "    ".repeat(self.open.len()))?;
        self.out.write_all(shown)?;
        writeln!(self.out, "{end}")
    }
}
