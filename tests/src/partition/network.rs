//! A network of a cluster's own, in which each member can be cut off.
//!
//! Every member lives in a network namespace with two links: one to all other
//! members, over a bridge that nothing else is on, and one to the test. Cutting
//! the first leaves a member that its clients still reach, as a partition does:
//! that is where stale answers come from. Packets are then lost without a word, as
//! by a rule of iptables that drops them, and no package is needed for it. Cuts of
//! one direction, or between two members alone, are the simulation's (tests/sim).

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use rustix::fs::{FlockOperation, flock};

use crate::{command, machine};

/// Networks that may be in use on one machine at a time.
const COUNT: u8 = 200;
const LOCKS: &str = "/tmp/etcfs-test-networks";

/// The links of one cluster; gone when dropped.
///
/// Addresses are from the range kept for tests of networks (RFC 2544).
#[derive(Debug)]
pub(super) struct Network {
    number: u8,
    members: usize,
    _lock: File,
}

impl Network {
    /// Links for `members`, all of them up.
    pub(super) fn of(members: usize) -> Self {
        machine::needs_network_namespaces();
        fs::create_dir_all(LOCKS).expect("a directory for locks");
        let (number, lock) = (0..COUNT).find_map(try_take).expect("not every network is in use");
        let network = Self { number, members, _lock: lock };
        // What a killed test left of the same number.
        network.remove();
        let bridge = network.bridge();
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("link set {bridge} up"));
        for member in 0..members {
            let (space, port, outside) =
                (network.space(member), network.port(member), network.outside(member));
            ip(&format!("netns add {space}"));
            ip(&format!("link add {port} type veth peer name peers netns {space}"));
            ip(&format!("link set {port} master {bridge} up"));
            ip(&format!("link add {outside} type veth peer name clients netns {space}"));
            ip(&format!("addr add {}/30 dev {outside}", network.gate(member)));
            ip(&format!("link set {outside} up"));
            ip(&format!("-n {space} addr add {}/24 dev peers", network.peer_host(member)));
            ip(&format!("-n {space} addr add {}/30 dev clients", network.client_host(member)));
            for link in ["lo", "peers", "clients"] {
                ip(&format!("-n {space} link set {link} up"));
            }
        }
        network
    }

    /// Where the other members reach one.
    pub(super) fn peer_host(&self, member: usize) -> String {
        format!("198.19.{}.{}", self.number, member + 1)
    }

    /// Where the test reaches a member.
    pub(super) fn client_host(&self, member: usize) -> String {
        format!("198.18.{}.{}", self.number, member * 4 + 2)
    }

    /// Loses every packet between a member and the others.
    pub(super) fn cut(&self, member: usize) {
        ip(&format!("link set {} down", self.port(member)));
    }

    /// Connects a member with all others that are not cut off.
    pub(super) fn mend(&self, member: usize) {
        ip(&format!("link set {} up", self.port(member)));
    }

    /// A command that does the same inside a member's network.
    pub(super) fn inside(&self, member: usize, command: &Command) -> Command {
        let mut inside = Command::new(machine::program("nsenter"));
        inside.arg(format!("--net=/run/netns/{}", self.space(member)));
        inside.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    fn gate(&self, member: usize) -> String {
        format!("198.18.{}.{}", self.number, member * 4 + 1)
    }
    fn space(&self, member: usize) -> String {
        format!("etcfs-test-{}-{member}", self.number)
    }
    fn bridge(&self) -> String {
        format!("etcfs{}b", self.number)
    }
    fn port(&self, member: usize) -> String {
        format!("etcfs{}p{member}", self.number)
    }
    fn outside(&self, member: usize) -> String {
        format!("etcfs{}c{member}", self.number)
    }

    /// Takes everything away that is there. A namespace's links go with it, but only some time later.
    fn remove(&self) {
        let try_ip = |args: &str| drop(command::run(&mut ip_command(args), b""));
        for member in 0..self.members {
            try_ip(&format!("link del {}", self.port(member)));
            try_ip(&format!("link del {}", self.outside(member)));
            try_ip(&format!("netns del {}", self.space(member)));
        }
        try_ip(&format!("link del {}", self.bridge()));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

fn try_take(number: u8) -> Option<(u8, File)> {
    let lock = File::create(Path::new(LOCKS).join(number.to_string())).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some((number, lock))
}

fn ip_command(args: &str) -> Command {
    let mut command = Command::new(machine::program("ip"));
    command.args(args.split(' '));
    command
}

#[track_caller]
fn ip(args: &str) {
    command::run(&mut ip_command(args), b"").ok();
}
