//! etcd's settings that change nothing here, and are taken all the same.
//!
//! A start script written for etcd carries many of them. One that asks for what
//! this server does anyway is passed over in silence; one that tunes a part of
//! etcd that is not here is passed over with a warning; any other value stays
//! refused, with the reason that [`unsupported`] has.

use std::ffi::OsString;

use super::{ConfigError, unsupported};

/// Which values of a setting are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Those that ask for what is so anyway.
    Only(&'static [&'static str]),
    /// All: there is nothing that they could change.
    All,
}
use Values::{All, Only};

/// Whether a flag stands for itself or has a value behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Switch,
    Value,
}
use Shape::{Switch, Value};

const SETTINGS: &[(&str, Shape, Values)] = &[
    ("backend-batch-interval", Value, All),
    ("backend-batch-limit", Value, All),
    ("backend-bbolt-freelist-type", Value, All),
    ("bootstrap-defrag-threshold-megabytes", Value, All),
    ("compaction-batch-limit", Value, All),
    ("compaction-sleep-interval", Value, All),
    ("enable-distributed-tracing", Switch, Only(&["false"])),
    ("enable-lease-checkpoint", Switch, Only(&["true"])),
    ("enable-lease-checkpoint-persist", Switch, Only(&["true"])),
    ("enable-log-rotation", Switch, Only(&["false"])),
    ("enable-pprof", Switch, Only(&["false"])),
    ("initial-election-tick-advance", Switch, All),
    ("log-outputs", Value, Only(&["default", "stderr"])),
    ("logger", Value, Only(&["zap"])),
    ("max-snapshots", Value, All),
    ("max-wals", Value, All),
    ("memory-mlock", Switch, Only(&["false"])),
    ("pre-vote", Switch, Only(&["true"])),
    ("snapshot-catchup-entries", Value, All),
    ("socket-reuse-address", Switch, Only(&["true", "false"])),
    ("socket-reuse-port", Switch, Only(&["false"])),
    ("stop-grpc-service-on-defrag", Switch, Only(&["false"])),
    ("txn-mode-write-with-shared-buffer", Switch, Only(&["true", "false"])),
    ("unsafe-no-fsync", Switch, Only(&["false"])),
];

/// Takes the settings that change nothing out of a command line; the rest, and what to warn of.
pub(super) fn take_from(argv: Vec<OsString>) -> Result<(Vec<OsString>, Vec<String>), ConfigError> {
    let (mut rest, mut warnings) = (Vec::new(), Vec::new());
    let mut argv = argv.into_iter().peekable();
    rest.extend(argv.next());
    while let Some(arg) = argv.next() {
        let flag = arg.to_str().and_then(|arg| arg.strip_prefix("--"));
        let Some((name, given)) =
            flag.map(|flag| flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v))))
        else {
            rest.push(arg);
            continue;
        };
        let value = match (shape(name), given) {
            (None, _) => {
                rest.push(arg);
                continue;
            }
            (_, Some(value)) => value.to_owned(),
            (Some(Switch), None) => "true".to_owned(),
            (Some(Value), None) => match argv.next().map(OsString::into_string) {
                Some(Ok(value)) => value,
                Some(Err(_)) | None => {
                    return Err(ConfigError::Usage(format!("a value is required for '--{name}'")));
                }
            },
        };
        take(name, &value, &format!("--{name}={value}"), &mut warnings)?;
    }
    Ok((rest, warnings))
}

/// True if `name` is such a setting; `setting` is how it was written.
pub(super) fn take(
    name: &str,
    value: &str,
    setting: &str,
    warnings: &mut Vec<String>,
) -> Result<bool, ConfigError> {
    let Some((known, _, values)) = find(name) else { return Ok(false) };
    let reason = unsupported::reason(known).unwrap_or("it changes nothing here");
    match values {
        All => warnings.push(format!("{setting} has no effect: {reason}")),
        Only(values) if values.contains(&value) => {}
        Only(_) => return Err(ConfigError::NotSupported { setting: setting.to_owned(), reason }),
    }
    Ok(true)
}

fn find(name: &str) -> Option<&'static (&'static str, Shape, Values)> {
    let name = name.strip_prefix("experimental-").unwrap_or(name);
    SETTINGS.iter().find(|(known, _, _)| *known == name)
}

fn shape(name: &str) -> Option<Shape> {
    find(name).map(|(_, shape, _)| *shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn no_setting_that_is_supported_is_passed_over() {
        for arg in super::super::args::Args::command().get_arguments() {
            assert_eq!(arg.get_long().and_then(shape), None);
        }
        for (name, _, _) in SETTINGS {
            assert!(unsupported::reason(name).is_some(), "{name} needs a reason");
        }
    }
}
