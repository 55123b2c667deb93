//! Conformance of the API: each case runs against `etcfsd` and against Debian's
//! etcd, so that what is expected is checked on the real thing.

mod smoke;
