# `just check` is what CI runs; `just fix` writes.

# Formatting, lints, documentation, manual pages, every test. Changes nothing.
check:
    .ci/run

# Every test; with names, those that have one of them in theirs.
test *names:
    tests/run {{names}}

# Tests of the mount under Debian 12's own kernel (needs root).
test-kernel *names:
    tests/kernel {{names}}

# Formats, and applies what clippy can.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Serves and mounts ./keys.
up *options:
    cargo run --release -- up ./keys {{options}}

# Licences, advisories and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny check

# The Debian package, and one of its debug symbols, in target/debian (needs cargo-deb, which `tests/run --packages` builds).
deb:
    cargo build --release --locked -p etcfs-cli -p etcfs-server -p etcfs-fs
    PATH="${XDG_CACHE_HOME:-$HOME/.cache}/etcfs-tests/bin:$PATH" cargo deb --no-build --locked --dbgsym --compress-debug-symbols=zlib -p etcfs-cli

# The same files as a tarball, in target/dist. The programs need a C library and nothing else.
dist: deb
    cli/dist/tarball target/debian/etcfs_*.deb target/dist

# What the README's performance section shows, against etcd at ENDPOINT.
bench endpoint="127.0.0.1:2379":
    cargo run --release -- bench compare 127.0.0.1:2379 {{endpoint}}
