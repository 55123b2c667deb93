//! The map against its promises: a table of known spellings, and properties on arbitrary bytes. The properties
//! run 10,000 cases each; of map and inverse, `tests/run` asks for a million (`ETCFS_TEST_MAP_CASES`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn map(prefix: &'static str) -> KeyMap {
    KeyMap::new(prefix.into(), Percent::Strict, Rel::Links)
}

fn path(map: &KeyMap, key: &[u8]) -> String {
    map.path_of(key).expect("key is in the mount").into_os_string().into_string().expect("UTF-8")
}

/// The last step of the way that `names` go, if there is one.
fn resolve(map: &KeyMap, names: &[OsString]) -> Option<Step> {
    let mut dir = map.root();
    let (last, way) = names.split_last()?;
    for name in way {
        dir = match map.step(&dir, name).ok()? {
            Step::Entry(entry) => entry.dir,
            Step::More(dir) | Step::Rel(dir) => dir,
            Step::Value(_) | Step::Reserved(_) => return None,
        };
    }
    map.step(&dir, last).ok()
}

fn names(path: &str) -> Vec<OsString> {
    path.split('/').map(OsString::from).collect()
}

#[test]
fn a_path_names_the_key_whose_value_it_is() {
    let project = map("/project/");
    let key_of = |path: &str| project.key_of(path.as_ref()).map(|key| key.bytes());
    assert_eq!(key_of("./jobs/job1"), Ok("/project/jobs/job1".into()));
    assert_eq!(key_of("jobs/%value"), Ok("/project/jobs".into()));
    for none in ["", "jobs/%value/x", "%log", "50%off", "../x"] {
        assert_eq!(key_of(none), Err(NameError::NotCanonical), "{none}");
    }
}

#[test]
fn the_table_of_spellings() {
    let root = map("/");
    for (key, spelled) in [
        (b"/a/b".as_ref(), "a/b"),
        (b"/", "%empty"),
        (b"//", "%empty/%empty"),
        (b"/a/", "a/%empty"),
        (b"/a//b", "a/%empty/b"),
        (b"/a\0", "a%00"),
        (b"/%41", "%2541"),
        (b"/..", "%2E%2E"),
        (b"/.", "%2E"),
        (b"/...", "..."),
        (b"/50%off", "50%25off"),
        (b"/tab\tnewline\n\x7f", "tab%09newline%0A%7F"),
        ("/gr\u{fc}n \u{85}".as_bytes(), "gr\u{fc}n %C2%85"),
        (b"/bad\xff\xc3", "bad%FF%C3"),
        (b"name", "%rel/name"),
        (b"dir/name", "%rel/dir/name"),
        (b".etcfs/dir//a/", "%rel/.etcfs/dir/%empty/a/%empty"),
    ] {
        assert_eq!(path(&root, key), spelled);
        let Some(Step::Entry(entry)) = resolve(&root, &names(spelled)) else { panic!("{spelled} is a name") };
        assert_eq!(&*entry.key, key);
        assert_eq!(&*root.key_of(spelled.as_ref()).expect("it is a file's path"), key);
        assert_eq!(Some(KeyMap::name_of(key)), names(spelled).pop());
    }
    assert_eq!(path(&map("/project/"), b"/project/jobs/job1"), "jobs/job1");
    assert_eq!(map("/project/").path_of(b"/projects"), None);
    assert_eq!(path(&map(""), b"/a"), "%empty/a");
}

#[test]
fn names_that_no_key_has() {
    let root = map("/");
    for name in
        ["%41", "50%off", "%", "%2", "%zz", "%2e", "%2F", "%C3%A9", "a%empty", "%emptyx", "%more", "a%more"]
    {
        assert_eq!(root.step(&root.root(), OsStr::new(name)), Err(NameError::NotCanonical), "{name}");
    }
    for name in [b"a\n".as_ref(), b"\xff", b"a/b", b"", b".", b"..", "\u{9f}".as_bytes()] {
        assert_eq!(root.step(&root.root(), OsStr::from_bytes(name)), Err(NameError::NotCanonical));
    }
    assert_eq!(root.step(&root.root(), OsStr::new(&"x".repeat(256))), Err(NameError::TooLong));
    let rel = root.rel_dir().expect("mounted at /");
    assert_eq!(root.step(&rel, OsStr::new("%empty")), Err(NameError::NotCanonical));
}

#[test]
fn percent_escape_takes_a_name_that_is_none_byte_by_byte() {
    let lenient = KeyMap::new("/".into(), Percent::Escape, Rel::Off);
    for (name, key) in [("50%off", "/50%off"), ("%41", "/%41"), ("%2f", "/%2f"), ("a%more", "/a%more")] {
        let Ok(Step::Entry(entry)) = lenient.step(&lenient.root(), OsStr::new(name)) else {
            panic!("{name}")
        };
        assert_eq!((&*entry.key, entry.canonical), (key.as_bytes(), false));
    }
    let Ok(Step::Entry(entry)) = lenient.step(&lenient.root(), OsStr::new("50%25off")) else { panic!() };
    assert_eq!((&*entry.key, entry.canonical), (b"/50%off".as_ref(), true));
}

/// Reserved words name no key
#[test]
fn reserved_words_are_no_keys() {
    let root = map("/");
    let step = |name: &str| root.step(&root.root(), OsStr::new(name)).ok();
    assert_eq!(step("%rel"), root.rel_dir().map(Step::Rel));
    assert_eq!(step("%log"), Some(Step::Reserved(Reserved::Log(root.root()))));
    for (name, word) in [
        ("%rev", Reserved::Rev),
        ("%leases", Reserved::Leases),
        ("%locks", Reserved::Locks),
        ("%status", Reserved::Status),
        ("a%log", Reserved::KeyLog("/a".into())),
        ("a%rev", Reserved::KeyRev("/a".into())),
        ("%empty%log", Reserved::KeyLog("/".into())),
    ] {
        assert_eq!(step(name), Some(Step::Reserved(word)));
    }
    assert_eq!(step("%value"), None, "the root is no key");
    let Some(Step::Entry(a)) = step("a") else { panic!() };
    assert_eq!(root.step(&a.dir, OsStr::new("%value")), Ok(Step::Value("/a".into())));
    for word in ["%status", "%leases", "%rel"] {
        assert_eq!(
            root.step(&a.dir, OsStr::new(word)),
            Err(NameError::NotCanonical),
            "only the root has {word}"
        );
    }
    assert_eq!(KeyMap::new("/".into(), Percent::Strict, Rel::Off).rel_dir(), None);
    assert_eq!(map("/project/").rel_dir(), None);
}

#[test]
fn long_components_are_cut_at_whole_units() {
    let root = map("/");
    let check = |component: &str, lengths: &[usize]| {
        let key = format!("/{component}/x");
        let way = root.names_of(key.as_bytes()).expect("in the mount");
        assert_eq!(way.iter().map(|name| name.len()).collect::<Vec<_>>(), lengths);
        let Some(Step::Entry(entry)) = resolve(&root, &way) else { panic!("{way:?} is a path") };
        assert_eq!(&*entry.key, key.as_bytes());
    };
    check(&"a".repeat(255), &[255, 1]);
    check(&"a".repeat(256), &[255, 6, 1]);
    check(&"a".repeat(505), &[255, 255, 1]);
    check(&"a".repeat(506), &[255, 255, 6, 1]);
    // An escape of three bytes, and a character of four, that do not fit any more.
    check(&format!("{}\n{}", "a".repeat(248), "b".repeat(100)), &[253, 103, 1]);
    check(&format!("{}\u{1f600}{}", "a".repeat(247), "b".repeat(100)), &[252, 104, 1]);
}

#[test]
fn a_more_name_is_well_formed_or_none() {
    let root = map("/");
    let step = |name: String| root.step(&root.root(), OsStr::new(&name));
    for length in 247..=250 {
        let Ok(Step::More(dir)) = step(format!("{}%more", "a".repeat(length))) else { panic!("{length}") };
        assert!(dir.is_more() && root.record_of(&dir).is_none() && root.value_key(&dir).is_none());
        // Only what did not fit may follow, and only as much as makes the whole too long for one name.
        let next = |name: &str| root.step(&dir, OsStr::new(name)).is_ok();
        assert_eq!(next(&"b".repeat(20)), length == 250);
        assert!(next(&format!("\u{1f600}{}", "b".repeat(20))));
        assert!(!next("b") && !next("%empty") && !next("%value") && !next("%log"));
    }
    assert_eq!(step(format!("{}%more", "a".repeat(246))), Err(NameError::NotCanonical));
    assert_eq!(step(format!("{}%more", "a".repeat(251))), Err(NameError::TooLong));
    // The halves of a character, spelled apart, are one character.
    let Ok(Step::More(dir)) = step(format!("{}%C3%more", "a".repeat(247))) else { panic!() };
    assert_eq!(root.step(&dir, OsStr::new("%A9bbbbbbbbbb")), Err(NameError::NotCanonical));
    assert!(root.step(&dir, OsStr::new("%FFbbbbbbbbbb")).is_ok());
}

/// A key that is also a directory shows its value as %value
#[test]
fn a_key_that_is_a_directory_too_shows_its_value_inside() {
    let root = map("/");
    let listed = list(&root, root.root(), &[b"/a/b".to_vec(), b"/a/b/c".to_vec(), b"/a/b/d".to_vec()], &[]);
    let Some(Child::Dir { dir, own: None }) = listed.get(OsStr::new("a")) else { panic!("{listed:?}") };
    let keys = [b"/a/b".to_vec(), b"/a/b/c".to_vec(), b"/a/b/d".to_vec()];
    let listed = list(&root, dir.clone(), &keys, &[]);
    let Some(Child::Dir { dir, own: Some(own) }) = listed.get(OsStr::new("b")) else { panic!("{listed:?}") };
    assert_eq!(root.value_key(dir).as_ref(), Some(own));
    let both = list(&root, root.root(), &[b"/".to_vec(), b"//".to_vec()], &[]);
    assert!(matches!(both.get(OsStr::new("%empty")), Some(Child::Dir { own: Some(_), .. })));
}

#[test]
fn records_show_as_directories_and_their_own_keys_show_nowhere() {
    let root = map("/");
    let records = [b".etcfs/dir//a/".to_vec(), b".etcfs/dir//a/b/c/".to_vec(), b".etcfs/dir/bare/".to_vec()];
    let shown = list(&root, root.root(), &records, &records);
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["a"]);
    let rel = list(&root, root.rel_dir().expect("mounted at /"), &records, &records);
    assert_eq!(rel.keys().collect::<Vec<_>>(), ["bare"]);
    assert_eq!(root.dir_of_record(&records[0]), Some(KeyMap::dir_of(&"/a".into())));
    assert_eq!(map("/b/").dir_of_record(&records[0]), None);
}

/// Keys without a leading slash live in %rel
#[test]
fn the_root_links_bare_keys_whose_name_is_free() {
    let root = map("/");
    let mut listing = Listing::new(&root, root.root());
    listing.key(b"/taken");
    let names = ["taken".into(), "free".into(), format!("{}%more", "a".repeat(250)).into()].into();
    listing.rel(&names, 3);
    let listed: BTreeMap<_, _> = listing.finish().collect();
    assert!(matches!(&listed[OsStr::new("taken")], Child::File(_)));
    let Child::Link(link) = &listed[OsStr::new("free")] else { panic!("{listed:?}") };
    assert_eq!((link.target.to_str(), &*link.entry.key), (Some("%rel/free"), b"free".as_ref()));
    assert_eq!(listed.len(), 3, "and %rel, but no link for part of a name");
    let rel = |names, links_max| {
        let mut listing = Listing::new(&root, root.root());
        listing.rel(names, links_max);
        listing.len()
    };
    assert_eq!((rel(&names, 2), rel(&BTreeSet::new(), 2)), (1, 0), "too many links are none; %rel stays");
}

#[test]
fn prefixes_are_written_in_the_maps_own_spelling() {
    let parse =
        |text| KeyMap::parse_prefix(text).map(|prefix| String::from_utf8(prefix.to_vec()).expect("UTF-8"));
    assert_eq!(parse("/").as_deref(), Ok("/"));
    assert_eq!(parse("").as_deref(), Ok(""));
    assert_eq!(parse("/project").as_deref(), Ok("/project/"));
    assert_eq!(parse("/project/jobs/").as_deref(), Ok("/project/jobs/"));
    assert_eq!(parse("bare").as_deref(), Ok("bare/"));
    assert_eq!(parse("/a%00/%empty/b").as_deref(), Ok("/a\0//b/"));
    assert_eq!(parse(".etcfs"), Err(PrefixError::OwnRecords));
    assert_eq!(parse(".etcfs/dir"), Err(PrefixError::OwnRecords));
    assert!(matches!(parse("/a//b"), Err(PrefixError::Spelling { canonical, .. }) if canonical == "%empty"));
    assert!(
        matches!(parse("/50%off"), Err(PrefixError::Spelling { canonical, .. }) if canonical == "50%25off")
    );
    assert!(matches!(parse("/a/%value"), Err(PrefixError::Reserved { .. })));
}

/// A listing as a reader makes it: always on from where the last key said.
fn list(map: &KeyMap, dir: Dir, keys: &[Vec<u8>], records: &[Vec<u8>]) -> BTreeMap<OsString, Child> {
    let keys: BTreeSet<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let records: BTreeSet<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let mut listing = Listing::new(map, dir.clone());
    let range = map.key_range(&dir);
    let mut from = range.start.clone();
    while let Some(key) = keys.range(from.as_ref()..).next().filter(|key| range.contains(key)) {
        let next = listing.key(key);
        assert!(next.as_ref() > *key, "a listing goes forward");
        from = next;
    }
    let range = map.record_range(&dir);
    let mut from = range.start.clone();
    while let Some(record) = records.range(from.as_ref()..).next().filter(|key| range.contains(key)) {
        let next = listing.record(record);
        assert!(next.as_ref() > *record, "a listing goes forward");
        from = next;
    }
    listing.finish().collect()
}

/// As many cases as `variable` says, or 10,000.
fn cases(variable: &str) -> ProptestConfig {
    let cases = std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(10_000);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// Bytes with everything in them that the map treats apart.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(vec![
        b"/".as_ref(),
        b"//",
        b"%",
        b"%41",
        b"%2F",
        b"%value",
        b"%empty",
        b"%more",
        b"%log",
        b".",
        b"..",
        b"\0",
        b"\n",
        b"\x7f",
        b"\xc2\x85",
        b"\xc3",
        b"\xa9",
        b"\xc3\xa9",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f",
        b"\xed\xa0\x80",
        b"\xff",
        b"a",
        b"a-",
        b".etcfs/",
        b"/.etcfs",
    ]);
    prop_oneof![
        6 => telling.prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(any::<u8>(), 0..4),
        1 => (b'a'..=b'c', 240usize..260).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(piece(), 1..8).prop_map(|pieces| pieces.concat())
}

fn prefix() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec![b"/".as_ref(), b"", b"/a/", b"//", b"a/", b"/%/\xff/"])
        .prop_map(Bytes::from_static)
}

/// A name such as a program might try: a spelling, a part of one, or what only looks like one.
fn name() -> impl Strategy<Value = OsString> {
    prop_oneof![
        4 => bytes().prop_map(|bytes| escape::encode(&bytes).into_bytes()),
        2 => bytes(),
        2 => (bytes(), 0usize..300).prop_map(|(bytes, cut)| {
            let spelled = escape::encode(&bytes.repeat(3));
            let run = spelled.as_bytes();
            [&run[..cut.min(run.len())], b"%more"].concat()
        }),
        1 => prop::sample::select(vec!["%value", "%empty", "%rel", "%log", "%rev", "x%log"])
            .prop_map(|word| word.as_bytes().to_vec()),
    ]
    .prop_map(OsString::from_vec)
}

proptest! {
    #![proptest_config(cases("ETCFS_TEST_MAP_CASES"))]

    /// Key -> path -> key, and nothing in a path that a name must not be.
    /// Every key under the prefix has exactly one path
    #[test]
    fn every_key_has_a_path_that_leads_back_to_it(prefix in prefix(), bare in any::<bool>(), tail in bytes()) {
        let map = KeyMap::new(prefix.clone(), Percent::Strict, Rel::Links);
        let key = if bare && map.rel_dir().is_some() && !tail.is_empty() { tail } else { [prefix.as_ref(), &tail].concat() };
        let names = map.names_of(&key).expect("the key is in the mount");
        for name in &names {
            let name = name.as_bytes();
            prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            prop_assert!(name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0));
        }
        let Some(Step::Entry(entry)) = resolve(&map, &names) else {
            return Err(TestCaseError::fail(format!("{names:?} leads nowhere")));
        };
        prop_assert!(entry.canonical);
        prop_assert_eq!(&*entry.key, key.as_slice());
        let (dir, name) = map.place_of(&key).expect("the key is in the mount");
        prop_assert_eq!(map.step(&dir, &name), Ok(Step::Entry(entry)));
    }

    /// Path -> key -> path: no two paths name one key, and no path names a key outside the mount.
    /// No path leads out of the mount
    #[test]
    fn a_path_that_names_a_key_is_that_keys_path(prefix in prefix(), names in prop::collection::vec(name(), 1..4)) {
        let map = KeyMap::new(prefix.clone(), Percent::Strict, Rel::Links);
        let key = match resolve(&map, &names) {
            Some(Step::Entry(entry)) => {
                prop_assert_eq!(map.names_of(&entry.key), Some(names));
                entry.key
            }
            Some(Step::Value(key)) => {
                let above = names[..names.len() - 1].to_vec();
                prop_assert_eq!(map.names_of(&key), Some(above));
                key
            }
            _ => return Ok(()),
        };
        prop_assert!(key.starts_with(&prefix) || (prefix == "/" && !key.is_empty()));
    }

}

proptest! {
    #![proptest_config(cases("PROPTEST_CASES"))]

    /// A directory lists the first name of each of its keys' ways, and a lookup of a listed name finds the same.
    #[test]
    fn a_listing_shows_what_lookups_find(prefix in prefix(), tails in prop::collection::vec(bytes(), 1..12)) {
        let map = KeyMap::new(prefix.clone(), Percent::Strict, Rel::Links);
        let below = tails.iter().map(|tail| [prefix.as_ref(), tail].concat());
        let keys: Vec<Vec<u8>> = below.chain(tails.clone()).filter(|key| !key.is_empty()).collect();
        let ways: Vec<Vec<OsString>> = keys.iter()
            .filter(|key| !map.is_own_record(key))
            .filter_map(|key| map.names_of(key))
            .filter(|way| !way.is_empty())
            .collect();
        let mut todo = vec![(map.root(), Vec::new())];
        while let Some((dir, above)) = todo.pop() {
            let below = ways.iter().filter(|way| way.starts_with(&above) && way.len() > above.len());
            let mut expected: BTreeSet<&OsString> = below.map(|way| &way[above.len()]).collect();
            let rel = OsString::from("%rel");
            expected.remove(&rel);
            let listed = list(&map, dir.clone(), &keys, &[]);
            prop_assert_eq!(listed.keys().collect::<BTreeSet<_>>(), expected);
            for (name, child) in listed {
                let way = [above.clone(), vec![name.clone()]].concat();
                let step = map.step(&dir, &name);
                match child {
                    Child::File(key) => prop_assert!(matches!(step, Ok(Step::Entry(entry)) if entry.key == key)),
                    Child::Dir { dir, own } => {
                        let Ok(Step::Entry(entry)) = step else { panic!("{way:?} is a name") };
                        prop_assert_eq!(&entry.dir, &dir);
                        prop_assert_eq!(own.is_some(), keys.iter().any(|key| **key == *entry.key));
                        todo.push((dir, way));
                    }
                    Child::More(dir) => {
                        prop_assert_eq!(step, Ok(Step::More(dir.clone())));
                        todo.push((dir, way));
                    }
                    Child::Value(_) | Child::Rel(_) | Child::Link(_) => panic!("nobody has added one"),
                }
            }
            if map.is_root(&dir) && let Some(dir) = map.rel_dir() {
                todo.push((dir, vec![rel]));
            }
        }
    }

    /// Second spellings, where they are let through, are marked, and never lead elsewhere than their bytes say.
    #[test]
    fn percent_escape_adds_names_and_changes_none(names in prop::collection::vec(name(), 1..2)) {
        let strict = KeyMap::new("/".into(), Percent::Strict, Rel::Links);
        let lenient = KeyMap::new("/".into(), Percent::Escape, Rel::Links);
        match (strict.step(&strict.root(), &names[0]), lenient.step(&lenient.root(), &names[0])) {
            (Err(_), Ok(Step::Entry(entry))) => {
                prop_assert!(!entry.canonical);
                prop_assert_eq!(&entry.key[1..], names[0].as_bytes());
            }
            (strict, lenient) => prop_assert!(strict == lenient || lenient == Err(NameError::TooLong)),
        }
    }
}
