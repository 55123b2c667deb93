//! Kills at the places where a crash hurts most.
//!
//! The server dies by SIGKILL inside its own code, at a failpoint that the
//! environment arms after a number of passes.

use std::time::Duration;

use etcfs_tests::server::{Kind, Options, Server};

use crate::verdict::{Clients, image_stood};

/// Deaths at each place.
const DEATHS: u64 = 4;
/// How soon a place that is passed all the time must have been passed often enough.
const PATIENCE: Duration = Duration::from_secs(40);

/// Dies `DEATHS` times at `site`, after up to `passes` passes of it.
#[track_caller]
fn dies_at(site: &str, passes: u64) {
    // Snapshots and purges every few puts, so that each place is passed.
    let args = vec!["--snapshot-count=50".to_owned()];
    let mut server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let clients = Clients::start(&server);
    for _ in 0..DEATHS {
        clients.load.wait_for_more(20);
        server.stop();
        let passes = rand::random::<u64>() % passes;
        server.set_env("FAILPOINTS", &format!("{site}={passes}*off->return"));
        server.launch();
        let status = server.wait_for_end(PATIENCE);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        server.unset_env("FAILPOINTS");
        server.run();
    }
    clients.load.wait_for_more(20);
    clients.check(&server);
    image_stood(&server);
}

macro_rules! deaths {
    ($($name:ident: $site:literal after $passes:literal;)+) => {
        $(#[test] fn $name() { dies_at($site, $passes); })+
    };
}

deaths! {
    a_death_before_the_log_is_synced_loses_nothing: "wal-before-sync" after 200;
    a_death_after_the_log_is_synced_loses_nothing: "wal-after-append" after 200;
    a_death_after_an_entry_is_applied_loses_nothing: "raft-after-apply" after 200;
    a_death_in_the_purge_of_the_log_loses_nothing: "raft-in-purge" after 3;
    a_death_as_the_image_is_written_loses_nothing: "image-in-write" after 5;
    a_death_as_the_image_is_flushed_loses_nothing: "image-in-flush" after 3;
    a_death_after_the_image_is_flushed_loses_nothing: "image-after-flush" after 3;
}
