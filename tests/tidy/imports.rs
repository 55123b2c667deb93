//! The code's paths against the table.

use std::path::Path;

use crate::{
    none, root,
    source::{Crate, Named},
    table::{ASSEMBLY, BANS, CLI, CLIENT, DOORS, FS, Module, PROTO, SERVER},
};

const CRATES: [(&str, &str, &[Module]); 5] = [
    ("server", "server/src/lib.rs", SERVER),
    ("fs", "fs/src/lib.rs", FS),
    ("cli", "cli/src/lib.rs", CLI),
    ("client", "proto/client/src/lib.rs", CLIENT),
    ("proto", "proto/src/lib.rs", PROTO),
];

#[test]
fn modules_import_only_what_the_table_allows() {
    let breaches = CRATES
        .iter()
        .filter(|(_, _, table)| !table.is_empty())
        .flat_map(|(krate, file, table)| inside(krate, table, &Crate::read(&root().join(file)).names))
        .collect();
    none(breaches);
}

#[test]
fn outside_crates_stay_behind_their_doors() {
    let breaches = CRATES
        .iter()
        .flat_map(|(krate, file, _)| outside(krate, &Crate::read(&root().join(file)).names))
        .collect();
    none(breaches);
}

#[test]
fn every_source_file_is_part_of_its_crate() {
    let mut breaches = Vec::new();
    for (_, file, _) in CRATES {
        let file = root().join(file);
        let reached = Crate::read(&file).files;
        let src = file.parent().expect("a file lies in a directory");
        let lost = crate::files::below(src, "rs").into_iter().filter(|file| !reached.contains(file));
        // main.rs is a crate of its own, a few lines that call the library.
        breaches.extend(lost.filter(|file| !file.ends_with("src/main.rs")).map(|file| shown(&file)));
    }
    none(breaches);
}

/// The entry of the table that a path below the crate falls under: the longest name that fits.
fn entry<'table>(table: &'table [Module], path: &[String]) -> Option<&'table Module> {
    table.iter().filter(|module| is_below(path, module.name)).max_by_key(|module| module.name.len())
}

/// True iff `path` is the module `name` or something in it.
fn is_below(path: &[String], name: &str) -> bool {
    name.is_empty() || name.split("::").enumerate().all(|(i, part)| path.get(i).is_some_and(|p| p == part))
}

fn inside(krate: &str, table: &[Module], names: &[Named]) -> Vec<String> {
    let assembly = ASSEMBLY.iter().find(|(name, _)| *name == krate).map_or(&[][..], |(_, modules)| *modules);
    let assembles = |path: &[String]| assembly.iter().any(|module| is_below(path, module));
    let mut breaches = Vec::new();
    for Named { file, by, path } in names {
        let [first, target @ ..] = path.as_slice() else { continue };
        if first != "crate" || target.is_empty() || by.is_empty() || assembles(by) {
            continue;
        }
        let who = by.join("::");
        let what = target.join("::");
        if assembles(target) {
            breaches.push(format!("{}: {who} uses {what}, which only assembles", shown(file)));
            continue;
        }
        let Some(from) = entry(table, by) else {
            breaches.push(format!("{}: module {who} of {krate} is not in the table", shown(file)));
            continue;
        };
        let Some(to) = entry(table, target) else {
            breaches.push(format!("{}: {who} uses {what}, which is not in the table", shown(file)));
            continue;
        };
        let own = to.name == from.name || is_below(target, from.name);
        if !own && !from.may.iter().any(|may| is_below(target, may)) {
            breaches.push(format!("{}: {} uses {what}; it may use {:?}", shown(file), from.name, from.may));
        }
    }
    breaches.sort();
    breaches.dedup();
    breaches
}

fn outside(krate: &str, names: &[Named]) -> Vec<String> {
    let mut breaches = Vec::new();
    for Named { file, by, path } in names {
        let who = by.join("::");
        for door in DOORS.iter().filter(|door| door.krate == krate && is_below(path, door.path)) {
            if !door.only.iter().any(|module| is_below(by, module)) {
                let only = door.only;
                breaches.push(format!("{}: {who} names {}; only {only:?} may", shown(file), door.path));
            }
        }
        for ban in BANS.iter().filter(|ban| ban.krate == krate && is_below(by, ban.module)) {
            for banned in ban.paths.iter().filter(|banned| is_below(path, banned)) {
                breaches.push(format!(
                    "{}: {who} names {banned}, which {} must not",
                    shown(file),
                    ban.module
                ));
            }
        }
    }
    breaches.sort();
    breaches.dedup();
    breaches
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(by: &str, path: &str) -> Vec<Named> {
        let parts = |text: &str| text.split("::").map(str::to_owned).collect();
        vec![Named { file: "x.rs".into(), by: parts(by), path: parts(path) }]
    }

    #[test]
    fn an_import_against_the_table_is_found() {
        let breach = |by, path| inside("server", SERVER, &named(by, path)).len();
        assert_eq!(breach("service::kv", "crate::propose::Proposer"), 0);
        assert_eq!(breach("service::kv", "crate::raft::Node"), 1);
        assert_eq!(breach("service::lease", "crate::lease::lessor::Lessor"), 0);
        assert_eq!(breach("service::lease", "crate::apply::Machine"), 1);
        assert_eq!(breach("mvcc::store", "crate::mvcc::index::KeyIndex"), 0);
        assert_eq!(breach("mvcc::store", "crate::run::run"), 1);
        assert_eq!(breach("run", "crate::raft::Node"), 0);
        assert_eq!(breach("novelty", "crate::raft::Node"), 1);
    }

    #[test]
    fn an_outside_name_away_from_its_door_is_found() {
        let breach = |by, path| outside("server", &named(by, path)).len();
        assert_eq!(breach("storage::sled", "sled::Db"), 0);
        assert_eq!(breach("storage::image", "sled::Db"), 1);
        assert_eq!(breach("raft::types", "openraft::Raft"), 0);
        assert_eq!(breach("apply::put", "std::time::Instant"), 1);
        assert_eq!(breach("apply::put", "std::time::Duration"), 0);
        assert_eq!(breach("service::kv", "etcfs_client::Client"), 1);
    }
}
