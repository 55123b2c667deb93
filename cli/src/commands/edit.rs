//! `etcfs edit`

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::Command,
};

use bytes::Bytes;
use clap::Args;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    pages::get,
    save::save,
};

/// Opens a key's value in an editor, and puts what is saved.
///
/// The editor is $VISUAL, else $EDITOR, else vi. Should the key change meanwhile, nothing is put, and what was
/// written stays in a file that is named.
#[derive(Args, Debug)]
#[command(after_help = "Example: EDITOR=nano etcfs edit /project/config")]
pub(crate) struct EditArgs {
    /// The key; made if it is not there
    key: OsString,
}

pub(crate) async fn run(global: &Global, args: EditArgs) -> Result<(), CliError> {
    let key = args::bytes(args.key);
    let client = connect::client(global)?;
    let read = get(&client, &key, 0).await?;
    let old = read.as_ref().map(|kv| kv.value.clone()).unwrap_or_default();
    let name = String::from_utf8_lossy(&key);

    let dir = tempfile::Builder::new().prefix("etcfs-edit-").tempdir()?;
    let file = dir.path().join(file_name(&name));
    fs::File::create_new(&file)?.write_all(&old)?;
    edit(&file)?;
    let new = Bytes::from(fs::read(&file)?);
    if new == old && read.is_some() {
        anstream::println!("{name} is unchanged");
        return Ok(());
    }
    match save(&client, &key, new, read.as_ref()).await {
        Ok(revision) => {
            anstream::println!("{name} saved at revision {revision}");
            Ok(())
        }
        Err(error) => {
            // Whatever kept it from being put, the work is not to be lost.
            let kept = dir.keep().join(file_name(&name));
            Err(error.hint(format!("what you wrote is in {}", kept.display())))
        }
    }
}

/// The key's last component, so that an editor knows the kind of text by its ending.
fn file_name(key: &str) -> String {
    let last = key.rsplit('/').next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).take(100).collect();
    if name.is_empty() || name == "." || name == ".." { "value".to_owned() } else { name }
}

/// Runs the editor, by the shell: the variables hold a command with its options.
fn edit(file: &Path) -> Result<(), CliError> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR"));
    if editor.is_none() && !io::stdin().is_terminal() {
        return Err(CliError::arguments("no editor is set, and there is no terminal to run vi on")
            .hint("set VISUAL or EDITOR"));
    }
    let mut command = editor.unwrap_or_else(|| "vi".into());
    command.push(" \"$1\"");
    let status = Command::new("sh").arg("-c").arg(&command).arg("sh").arg(file).status()?;
    if status.success() {
        return Ok(());
    }
    Err(CliError::failed(format!("the editor ended with {status}, so nothing is put")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_after_the_key_and_stays_in_its_directory() {
        for (key, name) in
            [("/a/b.yaml", "b.yaml"), ("x", "x"), ("/a/", "value"), ("/..", "value"), ("", "value")]
        {
            assert_eq!(file_name(key), name);
        }
    }
}
