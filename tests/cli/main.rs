//! What users type: the tutorial of etcd's documentation, word for word, with
//! Debian's `etcdctl` and with our `etcfs`, on our server and on etcd.

mod alike;
mod cluster;
mod doctor;
mod files;
mod keys;
mod mirror;
mod run;
mod script;
mod turns;
mod tutorial;
mod up;
