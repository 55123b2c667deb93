//! `etcfs top`: a page of the cluster, live on a terminal, once elsewhere.

use std::process::Command;

use etcfs_tests::{
    binary,
    cluster::Cluster,
    command::{Client, Followed},
    load::Load,
    machine,
    server::{Kind, Server},
    wait,
};

fn one_page(kind: Kind) {
    let server = Server::start(kind);
    let load = Load::start(&server.endpoint(), "/load/", 2);
    load.wait_for_more(20);
    let page = Client::etcfs(&server.endpoint()).run(["top", "--interval", "1s"]).ok();
    load.stop();
    assert!(!page.contains('\x1b'), "no colours where nobody sees them: {page}");
    let (head, rest) = page.split_once('\n').expect("lines");
    assert!(head.contains("1 of 1 members answer  leader default  revision "), "{page}");
    let row = |begin: &str| {
        let mut rows = rest.lines().skip_while(|line| !line.starts_with(begin));
        let titles = rows.next().unwrap_or_else(|| panic!("{begin} in {page}"));
        let cells = rows.next().unwrap_or_default();
        (titles.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), cells.to_owned())
    };
    let (_, member) = row("MEMBER   ENDPOINT");
    assert!(member.contains(&server.endpoint()) && member.contains("leader"), "{page}");
    let (titles, work) = row("MEMBER   PUT/s");
    let place = titles.iter().position(|title| title == "PUT/s").expect("a column");
    let puts: f64 = work.split_whitespace().nth(place).and_then(|cell| cell.parse().ok()).expect("a number");
    assert!(puts > 0.0, "{page}");
}

#[test]
fn a_page_is_printed_where_there_is_no_terminal() {
    one_page(Kind::Etcfs);
    one_page(Kind::Etcd);
}

#[test]
fn a_member_that_is_away_is_named() {
    let mut cluster = Cluster::with(Kind::Etcfs, 3, &[]);
    cluster.leader();
    let endpoints = cluster.endpoints();
    cluster.members[2].process().kill();
    let name = cluster.members[2].name().to_owned();
    let page = Client::etcfs(&endpoints).run(["top", "--interval", "100ms"]).ok();
    assert!(page.contains("2 of 3 members answer"), "{page}");
    assert!(page.contains(&format!("{name} does not answer: ")), "{page}");
}

/// On a terminal the page is shown again and again until q, on a screen of its own.
#[test]
fn a_terminal_is_left_as_it_was() {
    let server = Server::start(Kind::Etcfs);
    let etcfs = binary::etcfs().display().to_string();
    let top = format!("stty rows 30 cols 60; {etcfs} top --interval 200ms; echo end $?; stty -a");
    let mut command = Command::new(machine::program("script"));
    command.args(["--quiet", "--command", &top, "/dev/null"]).env("ETCFS_ENDPOINTS", server.endpoint());
    command.env("TERM", "xterm");
    let mut shown = Followed::start_with_input(&mut command);
    let mut text = String::new();
    let mut pages = 0;
    while pages < 3 {
        let line = shown.line();
        pages += line.matches("members answer").count();
        text.push_str(&line);
    }
    assert!(text.contains("\x1b[?1049h"), "another screen: {text:?}");
    shown.type_in("q");
    let mut end = String::new();
    wait::until_true("it ends", || {
        end.push_str(&shown.line());
        end.contains("end 0") && end.contains(" icanon")
    });
    assert!(end.contains("\x1b[?1049l") && end.contains("\x1b[?25h"), "{end:?}");
}
