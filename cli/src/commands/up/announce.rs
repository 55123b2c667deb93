//! What `up` says once all runs.

use std::{io::Write as _, path::Path};

use super::{Running, place::Place};
use crate::error::CliError;

/// Where clients look by themselves.
const USUAL_ENDPOINT: &str = "127.0.0.1:2379";

/// Says what runs where, and how to try it.
pub(super) fn announce(place: &Place, endpoints: &[String], running: &Running) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for (server, endpoint) in running.servers.iter().zip(endpoints) {
        let of_which = if endpoints.len() > 1 { format!("{}, ", server.name()) } else { String::new() };
        rows.push(("serves", endpoint.clone(), format!("etcd v3 API ({of_which}process {})", server.pid())));
    }
    if let Some(mount) = &running.mount {
        let point = place.mount_point().display().to_string();
        rows.push(("mounts", point, format!("every key a file (process {})", mount.pid())));
    }
    rows.push(("data", place.data_dir().display().to_string(), "stays when this stops".to_owned()));
    let width = rows.iter().map(|(_, what, _)| what.chars().count()).max().unwrap_or(0);
    let bold = clap::builder::styling::Style::new().bold();
    let mut out = anstream::stdout().lock();
    for (name, what, note) in rows {
        writeln!(out, "  {name:7} {bold}{what:width$}{bold:#}  {note}")?;
    }
    let is_usual = *endpoints == [USUAL_ENDPOINT];
    let flag = if is_usual { String::new() } else { format!(" --endpoints {}", endpoints.join(",")) };
    let lines = match running.mount {
        Some(_) => {
            let shown = shorter(place.mount_point());
            [
                format!("echo hello > {shown}/greeting"),
                format!("etcfs{flag} get /greeting"),
                format!("tail -f {shown}/greeting"),
            ]
        }
        None => [
            format!("etcfs{flag} put /greeting hello"),
            format!("etcfs{flag} get /greeting"),
            format!("etcfs{flag} watch --prefix /"),
        ],
    };
    writeln!(out, "\nTry it in another terminal (etcdctl works as well as etcfs):")?;
    for line in lines {
        writeln!(out, "  {line}")?;
    }
    let unmounts = if running.mount.is_some() { "unmounts and stops" } else { "stops" };
    writeln!(out, "\nCtrl-C {unmounts}.")?;
    out.flush()?;
    Ok(())
}

/// The path from where we are, if it is below.
fn shorter(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    below
        .filter(|below| !below.as_os_str().is_empty())
        .unwrap_or_else(|| path.to_path_buf())
        .display()
        .to_string()
}
