//! Reads a crate's modules as the compiler finds them, and the paths each names.
//!
//! Test code is left out: it may use what the module itself may not.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use syn::ext::IdentExt as _;
use syn::visit::{self, Visit};

/// The code of one crate, without its tests.
pub(crate) struct Crate {
    /// Every path named in it, resolved.
    pub(crate) names: Vec<Named>,
    /// The files that are part of it, tests too.
    pub(crate) files: BTreeSet<PathBuf>,
    /// What a module shows of another under its own name: both by full path.
    shown_again: HashMap<Vec<String>, Vec<String>>,
    modules: HashSet<Vec<String>>,
}

/// A path, and who names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) file: PathBuf,
    /// The module, below the crate.
    pub(crate) by: Vec<String>,
    /// What it names; within the crate it begins with `crate`.
    pub(crate) path: Vec<String>,
}

impl Crate {
    /// Reads the crate whose root file is `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut krate = Self {
            names: vec![],
            files: BTreeSet::new(),
            shown_again: HashMap::new(),
            modules: HashSet::new(),
        };
        krate.file(root, &[], false);
        krate.follow_reexports();
        krate.names.sort();
        krate.names.dedup();
        krate
    }

    fn file(&mut self, path: &Path, module: &[String], is_test: bool) {
        self.files.insert(path.into());
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Where the modules that this file declares lie: beside a mod.rs or root, else in its own folder.
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("files of ours have names");
        let beside = path.parent().expect("a file lies in a directory");
        let below = if matches!(stem, "mod" | "lib" | "main") { beside.into() } else { beside.join(stem) };
        self.items(&file.items, path, &below, module, is_test);
    }

    fn items(&mut self, items: &[syn::Item], file: &Path, below: &Path, module: &[String], is_test: bool) {
        for item in items {
            if let syn::Item::Mod(child) = item {
                let is_test = is_test || is_for_tests(&child.attrs);
                let name = child.ident.unraw().to_string();
                let mut inner = module.to_vec();
                inner.push(name.clone());
                self.modules.insert(inner.clone());
                match &child.content {
                    Some((_, items)) => self.items(items, file, &below.join(&name), &inner, is_test),
                    None => {
                        let flat = below.join(format!("{name}.rs"));
                        let folder = below.join(&name).join("mod.rs");
                        self.file(if flat.exists() { &flat } else { &folder }, &inner, is_test);
                    }
                }
            } else if !is_test {
                if let syn::Item::Use(item) = item
                    && !matches!(item.vis, syn::Visibility::Inherited)
                {
                    let mut paths = Paths::default();
                    paths.visit_item_use(item);
                    for path in paths.found {
                        let path = resolve(path, module);
                        let name = path.last().expect("a path has a last part").clone();
                        self.shown_again.insert([module, &[name]].concat(), path);
                    }
                }
                let mut paths = Paths::default();
                paths.visit_item(item);
                for path in paths.found {
                    let path = resolve(path, module);
                    self.names.push(Named { file: file.into(), by: module.to_vec(), path });
                }
            }
        }
    }
}

impl Crate {
    /// Replaces a name that a module only shows again by the place where it is at home.
    fn follow_reexports(&mut self) {
        let mut names = std::mem::take(&mut self.names);
        for named in &mut names {
            named.path = self.absolute(&named.path, &named.by);
            // A chain of them has few links; a cycle would not compile.
            for _ in 0..4 {
                let [first, place @ ..] = named.path.as_slice() else { break };
                if first != "crate" {
                    break;
                }
                let shown =
                    (1..=place.len()).find_map(|end| Some((end, self.shown_again.get(&place[..end])?)));
                let Some((end, home)) = shown else { break };
                let home = self.absolute(home, &place[..end - 1]);
                // Only from a part of itself: what a module shows of another's it answers for itself.
                let inside = home.first().is_some_and(|first| first == "crate")
                    && home[1..].starts_with(&place[..end - 1]);
                if !inside {
                    break;
                }
                named.path = [&home, &place[end..]].concat();
            }
        }
        self.names = names;
    }

    /// A path that begins with a child of the module that names it, from the crate on.
    fn absolute(&self, path: &[String], module: &[String]) -> Vec<String> {
        let child = [module, &path[..1]].concat();
        if self.modules.contains(&child) {
            [&["crate".to_owned()], module, path].concat()
        } else {
            path.to_vec()
        }
    }
}

/// Collects the paths of a piece of code, those in `use` trees and macros too.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        // One word is a local name, or was imported by a path that is seen elsewhere.
        if path.segments.len() > 1 {
            self.found.push(path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.tree(&item.tree, &[]);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.text(&call.tokens.to_string());
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

impl Paths {
    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &str| {
            let mut path = before.to_vec();
            path.push(name.to_owned());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident.unraw().to_string())),
            syn::UseTree::Name(name) if name.ident == "self" => self.found.push(before.to_vec()),
            syn::UseTree::Name(name) => self.found.push(with(&name.ident.unraw().to_string())),
            syn::UseTree::Rename(rename) => self.found.push(with(&rename.ident.unraw().to_string())),
            syn::UseTree::Glob(_) => self.found.push(with("*")),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }

    /// A macro's arguments are tokens: its paths are the words with `::` between.
    fn text(&mut self, tokens: &str) {
        let mut path: Vec<String> = Vec::new();
        let mut joined = false;
        for token in tokens.replace("::", " :: ").split_whitespace() {
            if token == "::" {
                joined = true;
                continue;
            }
            let word = token.chars().all(|c| c.is_alphanumeric() || c == '_');
            if !(joined && word) && path.len() > 1 {
                self.found.push(std::mem::take(&mut path));
            }
            if !joined {
                path.clear();
            }
            if word {
                path.push(token.into());
            }
            joined = false;
        }
        if path.len() > 1 {
            self.found.push(path);
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::NameValue(_) => false,
    })
}

/// Turns `self` and `super` into the module that they stand for.
fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = path.as_slice();
    let mut relative = false;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        relative = true;
        rest = tail;
    }
    if relative {
        std::iter::once("crate".to_owned()).chain(base).chain(rest.iter().cloned()).collect()
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(code: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lib.rs"), "mod a { mod b; }").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b.rs"), code).unwrap();
        let krate = Crate::read(&dir.path().join("lib.rs"));
        assert!(krate.names.iter().all(|named| named.by == ["a", "b"]));
        krate.names.into_iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn no_way_to_name_a_path_slips_by() {
        assert_eq!(
            names("use crate::x::{y, z as w, q::*};"),
            ["crate::x::q::*", "crate::x::y", "crate::x::z"]
        );
        assert_eq!(names("use super::super::x::Y;"), ["crate::x::Y"]);
        assert_eq!(names("fn f() { crate::x::y(); }"), ["crate::x::y"]);
        assert_eq!(names("fn f(a: Vec<crate::x::Y>) {}"), ["crate::x::Y"]);
        assert_eq!(names("fn f() { info!(\"{}\", self::c::d(1)); }"), ["crate::a::b::c::d"]);
        assert_eq!(names("impl sled::T for crate::x::Y {}"), ["crate::x::Y", "sled::T"]);
    }

    #[test]
    fn a_name_shown_again_is_followed_home() {
        let dir = tempfile::tempdir().unwrap();
        let code = "pub mod a { pub use b::T; pub mod b { pub struct T; } } pub mod c { use crate::a::T; }";
        fs::write(dir.path().join("lib.rs"), code).unwrap();
        let krate = Crate::read(&dir.path().join("lib.rs"));
        let by_c: Vec<_> = krate.names.iter().filter(|named| named.by == ["c"]).collect();
        assert_eq!(by_c[0].path.join("::"), "crate::a::b::T");
    }

    #[test]
    fn test_code_is_left_out() {
        assert!(names("#[cfg(test)] mod tests { use crate::x::Y; }").is_empty());
        assert!(names("#[cfg(test)] use crate::x::Y;").is_empty());
        assert!(names("#[cfg(test)] fn f() { crate::x::y() }").is_empty());
    }
}
