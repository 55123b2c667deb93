//! What the key map costs: names to keys and back.
//!
//!     cargo bench -p etcfs-fs
//!
//! criterion compares with the run before. `cargo test` runs each once.

use std::{hint::black_box, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etcfs_fs::map::{KeyMap, Listing, Percent, Rel};

const NAMES: usize = 10_000;

fn map(criterion: &mut Criterion) {
    let map = KeyMap::new("/registry/".into(), Percent::Strict, Rel::Off);
    let mut group = criterion.benchmark_group("key map");
    let long = format!("/registry/{}/value", "x".repeat(1000));
    for (kind, key) in [
        ("plain", "/registry/pods/default/web-7d4b9c6f5-x2x9z".to_owned()),
        ("escaped", "/registry/a b\u{1}/50%//*?\u{7f}/end".to_owned()),
        ("long", long),
    ] {
        let path = map.path_of(key.as_bytes()).expect("it lies below the prefix");
        group.bench_function(format!("{kind} key to path"), |bencher| {
            bencher.iter(|| map.path_of(black_box(key.as_bytes())));
        });
        group.bench_function(format!("{kind} path to key"), |bencher| {
            bencher.iter(|| map.key_of(black_box(&path)).expect("the map's own spelling"));
        });
    }
    assert_eq!(map.key_of(Path::new("a/b")).expect("two names").bytes(), "/registry/a/b");
    let keys: Vec<String> =
        (0..NAMES).map(|number| format!("/registry/{:04}/{number}", number / 3)).collect();
    group.throughput(Throughput::Elements(NAMES as u64));
    group.bench_function("10,000 keys to a listing", |bencher| {
        bencher.iter(|| {
            let mut listing = Listing::new(&map, map.root());
            for key in &keys {
                black_box(listing.key(key.as_bytes()));
            }
            listing.finish().count()
        });
    });
    group.finish();
}

criterion_group!(parts, map);
criterion_main!(parts);
