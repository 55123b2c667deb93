//! A cluster of three in its operator's hands. Each chapter runs four times, and
//! prints the same four times: with `etcdctl` and with `etcfs`, on three members of
//! `etcfsd` and on three of etcd itself. What differs from cluster to cluster has a
//! name in the chapters: `{m0}` is the id of the first member, `{peer0}` where the
//! others reach it, `{client0}` where clients do.

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

use std::collections::BTreeSet;

use etcfs_proto::etcdserverpb::MemberListRequest;
use etcfs_tests::{
    api,
    cluster::{Cluster, SETTLE, status},
    command::{Client, Output},
    server::Kind,
    wait,
};

struct Stage {
    cluster: Cluster,
    client: Client,
    /// To whichever member.
    connect: fn(&str) -> Client,
}

impl Stage {
    fn new(kind: Kind, connect: fn(&str) -> Client) -> Self {
        let cluster = Cluster::with(kind, 3, &[]);
        cluster.leader();
        let client = connect(&cluster.endpoints());
        Self { cluster, client, connect }
    }

    /// `text` with names for what is this cluster's own.
    fn named(&self, text: &str) -> String {
        let api = self.cluster.api(0);
        let list = api.wait(api.cluster().member_list(MemberListRequest::default())).unwrap().into_inner();
        let mut text = text.to_owned();
        let mut ids = vec![("{cluster}".to_owned(), list.header.unwrap().cluster_id)];
        for (nth, server) in self.cluster.members.iter().enumerate() {
            text = text.replace(&server.peer_url(), &format!("{{peer{nth}}}"));
            text = text.replace(&format!("http://{}", server.endpoint()), &format!("{{client{nth}}}"));
        }
        for member in list.members {
            let urls = member.peer_ur_ls.join(",");
            let known = self.cluster.members.iter().position(|server| server.peer_url() == urls);
            ids.push((known.map_or_else(|| "{new}".to_owned(), |nth| format!("{{m{nth}}}")), member.id));
        }
        for (name, id) in ids {
            // etcdctl pads them to 16 columns in some places. With the space before, since the padding of a short one
            // is taken for what it is only there.
            text =
                text.replace(&format!(" {id:>16x}"), &format!(" {name}")).replace(&format!("{id:x}"), &name);
        }
        text
    }

    fn try_run(&self, args: &str) -> Output {
        self.client.run(args.split(' '))
    }

    /// What a command that succeeds prints, its lines in order.
    #[track_caller]
    fn lines(&self, args: &str) -> Vec<String> {
        let mut lines: Vec<String> =
            self.named(&self.try_run(args).ok()).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[track_caller]
    fn says(&self, args: &str, output: &str) {
        assert_eq!(self.named(&self.try_run(args).ok()), output, "{} {args}", self.client.name);
    }

    /// Fails with these words.
    #[track_caller]
    fn complains(&self, args: &str, words: &str) {
        let complaint = self.named(&self.try_run(args).failed());
        assert!(complaint.contains(words), "{} {args}: {complaint}", self.client.name);
    }

    /// Tried until the members have known each other for long enough, as both servers want it.
    #[track_caller]
    fn once_healthy(&self, args: &str) -> String {
        wait::within(SETTLE, "the cluster is healthy", || {
            let output = self.try_run(args);
            if output.code != 0 {
                assert!(output.stderr.contains("unhealthy cluster"), "{args}: {output:?}");
                return None;
            }
            Some(self.named(&output.stdout))
        })
    }

    fn id(&self, nth: usize) -> String {
        format!("{:x}", status(&self.cluster.api(nth)).unwrap().header.unwrap().member_id)
    }
}

macro_rules! chapters {
    ($($(#[$doc:meta])* fn $name:ident($stage:ident: $type:ty) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                #[allow(unused_mut, reason = "some chapters change the cluster, and some do not")]
                fn chapter(mut $stage: $type) $body

                #[test]
                fn etcdctl_on_etcfsd() { chapter(Stage::new(Kind::Etcfs, Client::etcdctl)) }
                #[test]
                fn etcfs_on_etcfsd() { chapter(Stage::new(Kind::Etcfs, Client::etcfs)) }
                #[test]
                fn etcdctl_on_etcd() { chapter(Stage::new(Kind::Etcd, Client::etcdctl)) }
                #[test]
                fn etcfs_on_etcd() { chapter(Stage::new(Kind::Etcd, Client::etcfs)) }
            }
        )*
    };
}

chapters! {
    fn every_member_is_listed_and_asked(s: Stage) {
        let listed = |nth| format!("{{m{nth}}}, started, m{nth}, {{peer{nth}}}, {{client{nth}}}, false");
        assert_eq!(s.lines("member list"), [listed(0), listed(1), listed(2)]);
        // In the order in which they answered, and to standard error before etcdctl 3.5.
        let asked = s.try_run("endpoint health --cluster");
        assert_eq!(asked.code, 0, "{asked:?}");
        let healthy = s.named(&(asked.stdout + &asked.stderr));
        for nth in 0..3 {
            let words = format!("{{client{nth}}} is healthy: successfully committed proposal: took = ");
            assert_eq!(healthy.matches(&words).count(), 1, "{healthy}");
        }
        s.cluster.api(0).set("a", "v");
        s.cluster.agree();
        let leader = s.cluster.leader();
        for (flag, scheme) in [("", ""), (" --cluster", "http://")] {
            let endpoint = |nth: usize| format!("{scheme}{}", s.cluster.members[nth].endpoint());
            let hashes = s.try_run(&format!("endpoint hashkv{flag}")).ok();
            let values: BTreeSet<&str> = hashes.lines().filter_map(|line| Some(line.split_once(", ")?.1)).collect();
            assert_eq!((hashes.lines().count(), values.len()), (3, 1), "{hashes}");
            let told = s.try_run(&format!("endpoint status{flag}")).ok();
            // Beside endpoint and id: leads, learns, errors, in the columns of 3.4 or of 3.6.
            let (columns, at) = if s.client.name == "etcdctl" { (10, [4, 5, 9]) } else { (16, [8, 9, 13]) };
            for nth in 0..3 {
                let line = told.lines().find(|line| line.starts_with(&format!("{}, ", endpoint(nth))));
                let fields: Vec<&str> = line.unwrap_or_else(|| panic!("{told}")).split(", ").collect();
                assert_eq!((fields.len(), fields[1]), (columns, &*s.id(nth)), "{told}");
                let leads = (nth == leader).to_string();
                assert_eq!(at.map(|column| fields[column]), [&*leads, "false", ""], "{told}");
            }
        }
    }

    fn the_leader_is_told_to_let_another_lead(s: Stage) {
        let (from, to) = (s.cluster.leader(), s.cluster.follower());
        let said = format!("Leadership transferred from {{m{from}}} to {{m{to}}}\n");
        s.says(&format!("move-leader {}", s.id(to)), &said);
        assert_eq!(s.cluster.leader(), to);
        s.complains("move-leader 1234", "etcdserver: bad leader transferee");
        s.complains("move-leader", "move-leader command needs 1 argument");
        let alone = (s.connect)(&s.cluster.members[from].endpoint());
        let refused = alone.run(["move-leader", &s.id(from)]);
        assert_eq!(refused.code, 128);
        assert!(refused.stderr.contains("no leader endpoint given at ["), "{}", refused.stderr);
    }

    fn a_learner_is_added_promoted_moved_and_removed(s: Stage) {
        let mut newcomer = s.cluster.newcomer("m3", &[]);
        let url = newcomer.peer_url();
        let taken = s.cluster.members[1].peer_url();
        s.complains("member remove 1234", "etcdserver: member not found");
        s.complains("member promote 1234", "etcdserver: member not found");
        s.complains(&format!("member promote {}", s.id(0)), "etcdserver: can only promote a learner member");
        let added = s.once_healthy(&format!("member add m3 --learner --peer-urls={url}")).replace(&url, "{peer3}");
        let (head, settings) = added.split_once("\n\n").unwrap();
        assert_eq!(head, "Member {new} added to cluster {cluster}");
        let settings: Vec<&str> = settings.lines().collect();
        let (name, value) = settings[1].split_once('=').unwrap();
        let members: BTreeSet<&str> = value.trim_matches('"').split(',').collect();
        assert_eq!(name, "ETCD_INITIAL_CLUSTER");
        assert_eq!(members, ["m0={peer0}", "m1={peer1}", "m2={peer2}", "m3={peer3}"].into());
        assert_eq!(
            [settings[0], settings[2], settings[3]],
            [
                "ETCD_NAME=\"m3\"",
                "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"{peer3}\"",
                "ETCD_INITIAL_CLUSTER_STATE=\"existing\"",
            ]
        );
        s.complains(&format!("member add m4 --peer-urls={taken}"), "etcdserver: Peer URLs already exists");
        let unstarted = format!("{{new}}, unstarted, , {url}, , true");
        assert!(s.lines("member list").contains(&unstarted), "{:?}", s.lines("member list"));
        let id = s.client.run(["member", "list"]).ok();
        let id = id.lines().find(|line| line.contains("unstarted")).unwrap().split(',').next().unwrap().to_owned();
        let behind = "etcdserver: can only promote a learner member which is in sync with leader";
        s.complains(&format!("member promote {id}"), behind);
        newcomer.launch();
        s.cluster.members.push(newcomer);
        let learner = "{m3}, started, m3, {peer3}, {client3}, true".to_owned();
        wait::within(SETTLE, "it has started", || s.lines("member list").contains(&learner).then_some(()));
        let promoted = wait::within(SETTLE, "it has caught up", || {
            let output = s.try_run(&format!("member promote {id}"));
            (output.code == 0).then(|| s.named(&output.stdout))
        });
        assert_eq!(promoted, "Member {m3} promoted in cluster {cluster}\n");
        // By another name for the same address.
        let elsewhere = url.replace("127.0.0.1", "localhost");
        s.says(
            &format!("member update {id} --peer-urls={elsewhere}"),
            "Member {new} updated in cluster {cluster}\n",
        );
        let removed = s.once_healthy(&format!("member remove {id}"));
        assert_eq!(removed.replace(&format!("{id:>16}"), "{gone}"), "Member {gone} removed from cluster {cluster}\n");
        s.cluster.members[3].wait_for_end(SETTLE);
        assert_eq!(s.lines("member list").len(), 3);
    }

    fn a_snapshot_of_any_member_makes_a_new_cluster(s: Stage) {
        s.cluster.api(0).set("a", "v");
        s.cluster.api(1).set("b", vec![b'w'; 100_000]);
        s.cluster.api(2).delete(api::delete("a")).unwrap();
        s.cluster.agree();
        let revision = s.cluster.api(0).revision();
        s.complains("snapshot save file", "snapshot must be requested to one selected node, not multiple");
        let dir = tempfile::tempdir().unwrap();
        let files = [0, 1, 2].map(|nth| {
            let file = dir.path().join(format!("m{nth}.db")).display().to_string();
            let client = (s.connect)(&s.cluster.members[nth].endpoint());
            assert_eq!(client.run(["snapshot", "save", &file]).ok(), format!("Snapshot saved at {file}\n"));
            file
        });
        // Each kind of server has files of its own, and the tool that knows them.
        let kind = s.cluster.members[0].kind();
        let tool = if kind == Kind::Etcfs { Client::etcfs("") } else { Client::etcdctl("") };
        for file in &files {
            let told = tool.run(["snapshot", "status", file]).ok();
            assert_eq!(told.split(", ").nth(1), Some(&*revision.to_string()), "{told}");
        }
        let mut anew = Cluster::prepared(kind, 3, &["--initial-cluster-token=new"]);
        let named = anew.members.iter().map(|member| format!("{}={}", member.name(), member.peer_url()));
        let named = named.collect::<Vec<_>>().join(",");
        for (member, file) in anew.members.iter_mut().zip(&files) {
            let data = dir.path().join(member.name());
            let told = tool.run([
                "snapshot",
                "restore",
                file,
                &format!("--data-dir={}", data.display()),
                &format!("--name={}", member.name()),
                &format!("--initial-cluster={named}"),
                "--initial-cluster-token=new",
                &format!("--initial-advertise-peer-urls={}", member.peer_url()),
            ]);
            assert_eq!(told.code, 0, "{told:?}");
            member.set_data_dir(data);
        }
        anew.run();
        anew.leader();
        let client = (s.connect)(&anew.endpoints());
        assert_eq!(client.run(["get", "", "--prefix", "--keys-only"]).ok(), "b\n\n");
        assert_eq!(anew.api(1).get("b").unwrap().value, vec![b'w'; 100_000]);
        assert_eq!(anew.api(2).revision(), revision);
        assert_eq!(client.run(["put", "c", "1"]).ok(), "OK\n");
        anew.agree();
    }

    fn a_lease_is_kept_alive_and_told_of_by_any_member(s: Stage) {
        for nth in 0..3 {
            let client = (s.connect)(&s.cluster.members[nth].endpoint());
            let other = (s.connect)(&s.cluster.members[(nth + 1) % 3].endpoint());
            let granted = client.run(["lease", "grant", "60"]).ok();
            let id = granted.split(' ').nth(1).unwrap();
            assert_eq!(
                other.run(["lease", "keep-alive", "--once", id]).ok(),
                format!("lease {id} keepalived with TTL(60)\n")
            );
            let told = other.run(["lease", "timetolive", id]).ok();
            let left = told.strip_prefix(&format!("lease {id} granted with TTL(60s), remaining(")).unwrap();
            let left: i64 = left.strip_suffix("s)\n").unwrap().parse().unwrap();
            assert!((55..=60).contains(&left), "{told}");
            other.run(["put", "leased", "v", "--lease", id]).ok();
            let keys = client.run(["lease", "timetolive", id, "--keys"]).ok();
            assert!(keys.ends_with("attached keys([leased])\n"), "{keys}");
            assert_eq!(client.run(["lease", "revoke", id]).ok(), format!("lease {id} revoked\n"));
            assert_eq!(other.run(["get", "leased"]).ok(), "");
        }
    }
}
