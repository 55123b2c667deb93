//! Named clusters: a file of contexts, as kubectl has one.
//!
//! A context is taken as a whole or not at all. Nothing secret stands in the file; a password may stand in one of
//! its own, which a context names.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    args::{Global, Named, Settings},
    error::CliError,
};

/// What a context may set: global options, by their names.
pub(crate) const SETTINGS: [&str; 14] = [
    "endpoints",
    "discovery-srv",
    "discovery-srv-name",
    "discovery-srv-server",
    "insecure-discovery",
    "cacert",
    "cert",
    "key",
    "insecure-transport",
    "insecure-skip-tls-verify",
    "user",
    "password-file",
    "dial-timeout",
    "command-timeout",
];
/// Those that name files.
const FILES: [&str; 4] = ["cacert", "cert", "key", "password-file"];

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Contexts {
    #[serde(default)]
    pub(crate) current_context: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, BTreeMap<String, String>>,
}

/// Where the file lies.
pub(crate) fn path() -> Result<PathBuf, CliError> {
    if let Some(path) = env::var_os("ETCFS_CONFIG") {
        return Ok(path.into());
    }
    let dir = env::var_os("XDG_CONFIG_HOME").filter(|dir| Path::new(dir).is_absolute()).map(PathBuf::from);
    let dir = dir.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    let dir = dir.ok_or_else(|| CliError::arguments("no home directory: set ETCFS_CONFIG to a file"))?;
    Ok(dir.join("etcfs/config.yaml"))
}

/// What the context of this command line sets; nothing if there is none.
pub(crate) fn chosen(global: &Global, named: Named) -> Result<Settings, CliError> {
    // Servers that were named otherwise are not the current context's, nor is their user.
    if named.servers && !named.context {
        return Ok(Settings::default());
    }
    let path = match path() {
        Ok(path) => path,
        Err(_) if global.context.is_none() => return Ok(Settings::default()),
        Err(error) => return Err(error),
    };
    let contexts = Contexts::read(&path)?;
    let Some(name) = global.context.as_ref().or(contexts.current_context.as_ref()) else {
        return Ok(Settings::default());
    };
    let context = contexts.get(name)?;
    check_owner(&path)?;
    let values = context.iter().map(|(name, value)| (id_of(name), value.clone()));
    Ok(Settings { values: values.collect(), named: named.context })
}

/// clap's id of a flag.
fn id_of(name: &str) -> String {
    if name == "key" { "key_file".to_owned() } else { name.replace('-', "_") }
}

/// Who may write the file may send our password anywhere.
fn check_owner(path: &Path) -> Result<(), CliError> {
    let found = fs::metadata(path)?;
    let us = rustix::process::geteuid().as_raw();
    if found.permissions().mode() & 0o022 != 0 || (found.uid() != us && found.uid() != 0) {
        return Err(CliError::arguments(format!("{}: others may write it", path.display()))
            .hint(format!("chmod go-w {}", path.display())));
    }
    Ok(())
}

impl Contexts {
    /// Reads the file; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let failed = |why: String| CliError::arguments(format!("{}: {why}", path.display()));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error.to_string())),
        };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let contexts: Self = serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?;
        for (name, settings) in &contexts.contexts {
            if let Some(other) = settings.keys().find(|setting| !SETTINGS.contains(&setting.as_str())) {
                return Err(failed(format!("context {name} has {other}, which is no setting")));
            }
        }
        Ok(contexts)
    }

    pub(crate) fn get(&self, name: &str) -> Result<&BTreeMap<String, String>, CliError> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
            let hint = match known.join(", ") {
                none if none.is_empty() => {
                    "`etcfs context set NAME endpoints=HOST:PORT` makes one".to_owned()
                }
                names => format!("there are: {names}"),
            };
            CliError::arguments(format!("no context {name:?}")).hint(hint)
        })
    }

    /// Sets or, with an empty value, unsets.
    pub(crate) fn set(&mut self, name: &str, setting: &str, value: &str) -> Result<(), CliError> {
        if !SETTINGS.contains(&setting) {
            return Err(CliError::arguments(format!("{setting} is no setting of a context"))
                .hint(format!("there are: {}", SETTINGS.join(", "))));
        }
        let context = self.contexts.entry(name.to_owned()).or_default();
        if value.is_empty() {
            context.remove(setting);
            return Ok(());
        }
        let value = if FILES.contains(&setting) {
            // The file is read from any directory.
            std::path::absolute(value)?.display().to_string()
        } else {
            value.to_owned()
        };
        context.insert(setting.to_owned(), value);
        Ok(())
    }

    /// Replaces the file as a whole. Comments in it are lost.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CliError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut &file, self.text().as_bytes())?;
        file.sync_all()?;
        Ok(fs::rename(&new, path)?)
    }

    /// YAML, in which a JSON string is a string.
    fn text(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = String::new();
        if let Some(name) = &self.current_context {
            text += &format!("current-context: {}\n", quoted(name));
        }
        if !self.contexts.is_empty() {
            text += "contexts:\n";
        }
        for (name, settings) in &self.contexts {
            let empty = if settings.is_empty() { " {}" } else { "" };
            text += &format!("  {}:{empty}\n", quoted(name));
            for (setting, value) in settings {
                text += &format!("    {setting}: {}\n", quoted(value));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        _global: Global,
    }

    #[test]
    fn every_setting_is_a_global_flag() {
        let command = Line::command();
        for setting in SETTINGS {
            let id = id_of(setting);
            let found = command.get_arguments().find(|arg| arg.get_id() == id.as_str());
            assert_eq!(found.and_then(clap::Arg::get_long), Some(setting));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.yaml");
        let mut contexts = Contexts::read(&path).unwrap();
        assert_eq!(contexts, Contexts::default());
        contexts.set("a: b #", "endpoints", "x:1,y:2").unwrap();
        contexts.set("a: b #", "user", "\"odd\" \u{e9}").unwrap();
        contexts.set("bare", "user", "gone").unwrap();
        contexts.set("bare", "user", "").unwrap();
        contexts.set("bare", "password", "no").unwrap_err();
        contexts.current_context = Some("a: b #".into());
        contexts.write(&path).unwrap();
        assert_eq!(Contexts::read(&path).unwrap(), contexts);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        check_owner(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        check_owner(&path).unwrap_err();
    }

    #[test]
    fn a_list_may_be_written_by_hand_as_one_line_and_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "contexts:\n  c:\n    endpoint: x\n").unwrap();
        assert!(Contexts::read(&path).unwrap_err().message().contains("context c has endpoint"));
        fs::write(&path, "# nothing yet\n").unwrap();
        assert!(Contexts::read(&path).unwrap().get("x").is_err());
    }
}
