//! What users type: the tutorial of etcd's documentation, word for word, with
//! Debian's `etcdctl` and with our `etcfs`, on our server and on etcd.

/// A test of each of these functions on our server, and one on etcd.
macro_rules! on_both {
    ($($name:ident)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn on_etcfsd() { super::$name(Kind::Etcfs) }
                #[test]
                fn on_etcd() { super::$name(Kind::Etcd) }
            }
        )*
    };
}

mod alike;
mod bench;
mod cluster;
mod completion;
mod context;
mod doctor;
mod examples;
mod files;
mod keys;
mod migrate;
mod mirror;
mod mount;
mod offline;
mod package;
mod passwords;
mod paths;
mod run;
mod script;
mod terminal;
mod top;
mod turns;
mod tutorial;
mod up;
mod watch;
