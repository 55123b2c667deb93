//! Compiles the .proto files in Rust alone: no `protoc` is needed to build.

use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: [&str; 9] = [
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/rpc.proto",
    "etcd/lock.proto",
    "etcd/election.proto",
    "etcfs/command.proto",
    "etcfs/record.proto",
    "etcfs/peer.proto",
    "etcfs/tree.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for dir in ["etcd", "etcfs", "google"] {
        println!("cargo:rerun-if-changed={dir}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Encoded here, not by prost: the http annotations are extensions, and survive only so.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let set = compiler.file_descriptor_set();
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
