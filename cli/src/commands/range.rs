//! Which keys a command means: one, a range, a prefix, or all from one on.

use bytes::Bytes;
use clap::Args;
use etcfs_proto::key::{TO_END, prefix_end};

use crate::error::CliError;

/// How the key argument is meant.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// All keys that start with the key
    #[arg(long)]
    prefix: bool,
    /// All keys from the key on, in byte order
    #[arg(long)]
    from_key: bool,
}

impl Reach {
    /// The `key` and `range_end` of a request.
    pub(crate) fn resolve(self, mut args: Vec<Bytes>, command: &str) -> Result<(Bytes, Bytes), CliError> {
        if self.prefix && self.from_key {
            return Err(CliError::arguments(
                "`--prefix` and `--from-key` cannot be set at the same time, choose one",
            ));
        }
        let range_end = match args.len() {
            1 => None,
            2 => args.pop(),
            _ => {
                return Err(CliError::arguments(format!(
                    "{command} command needs one argument as key and an optional argument as range_end"
                )));
            }
        };
        let key = args.pop().expect("one argument is left");
        if !self.prefix && !self.from_key {
            return Ok((key, range_end.unwrap_or_default()));
        }
        if range_end.is_some() {
            return Err(CliError::arguments(
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
            ));
        }
        // The empty key can't be named in a request: the smallest that can is \0.
        let start = if key.is_empty() { Bytes::from_static(b"\0") } else { key.clone() };
        let end = if self.prefix { prefix_end(&key) } else { Bytes::from_static(TO_END) };
        Ok((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(prefix: bool, from_key: bool, args: &[&'static str]) -> Result<(Bytes, Bytes), CliError> {
        Reach { prefix, from_key }
            .resolve(args.iter().map(|a| Bytes::from_static(a.as_bytes())).collect(), "get")
    }

    #[test]
    fn keys_ranges_and_prefixes_become_bounds() {
        assert_eq!(resolve(false, false, &["a"]).unwrap(), ("a".into(), Bytes::new()));
        assert_eq!(resolve(false, false, &["a", "c"]).unwrap(), ("a".into(), "c".into()));
        assert_eq!(resolve(true, false, &["a"]).unwrap(), ("a".into(), "b".into()));
        assert_eq!(resolve(false, true, &["a"]).unwrap(), ("a".into(), "\0".into()));
        assert_eq!(resolve(true, false, &[""]).unwrap(), ("\0".into(), "\0".into()));
        assert_eq!(resolve(false, true, &[""]).unwrap(), ("\0".into(), "\0".into()));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(resolve(true, true, &["a"]).is_err());
        assert!(resolve(true, false, &["a", "b"]).is_err());
        assert!(resolve(false, false, &[]).is_err());
        assert!(resolve(false, false, &["a", "b", "c"]).is_err());
    }
}
