//! Bits that flip on the disk: refused or repaired, never served as data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use etcfs_proto::mvccpb::Event;
use etcfs_tests::{
    api::{Api, event_revision, runtime, watch_prefix},
    command,
    machine::setting,
    process::show,
    server::{Kind, Options, Server, http_get},
    wait,
};
use tokio::time::timeout;

/// Flips of one test.
const FLIPS: u64 = 30;
const PUTS: u64 = 1000;

/// A data directory as a server leaves it, and its log of events.
fn made(args: &[String], end: fn(&mut Server)) -> (Server, Vec<Event>) {
    let mut server = Server::with(Kind::Etcfs, Options { args: args.to_vec(), ..Default::default() });
    let api = server.api();
    // One at a time: each is an entry of its own in the Raft log.
    for number in 0..PUTS {
        api.set(&format!("k{}", number % 50), format!("value {number} {}", "x".repeat(200)));
    }
    let events = api.events_since("", 2);
    assert_eq!(events.len() as u64, PUTS);
    end(&mut server);
    (server, events)
}

/// Every file below `dir` that holds something, with the bytes up to its last that is not zero.
pub(crate) fn files(dir: &Path) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                found.push((path, used));
            }
        }
    }
    found.sort();
    found
}

/// All events that a server on this data serves; none where it refuses to.
fn served(server: &mut Server) -> Option<Vec<Event>> {
    server.launch();
    let endpoint = server.endpoint();
    let serves = wait::until("the server serves or ends", || {
        if server.process().has_ended().is_some() {
            return Some(false);
        }
        http_get(&endpoint, "/health").filter(|body| body.contains("\"true\"")).map(|_| true)
    });
    if !serves {
        let log = server.process().log();
        let why = log.lines().rfind(|line| !line.is_empty()).expect("it must say why");
        show(&why[..why.len().min(240)]);
        return None;
    }
    let api = server.api();
    let read = runtime().block_on(async { timeout(Duration::from_secs(20), all(&api)).await });
    read.expect("a server that serves answers").or_else(|| {
        // It may find the damage as it reads; then it must not go on.
        server.process().wait_for_end(Duration::from_secs(5));
        None
    })
}

/// The whole log by a watch, up to the current revision; none if the server ends on the way.
async fn all(api: &Api) -> Option<Vec<Event>> {
    use etcfs_proto::etcdserverpb::{WatchRequest, watch_request::RequestUnion};
    let range = etcfs_tests::api::prefix("");
    let range = api.kv().range(range).await.ok()?.into_inner();
    let current = range.header?.revision;
    if current < 2 {
        return Some(vec![]);
    }
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    let create = RequestUnion::CreateRequest(watch_prefix("", 2));
    requests.try_send(WatchRequest { request_union: Some(create) }).ok()?;
    let mut client = etcfs_proto::etcdserverpb::watch_client::WatchClient::new(api.channel());
    let mut stream =
        client.watch(tokio_stream::wrappers::ReceiverStream::new(queue)).await.ok()?.into_inner();
    let mut events: Vec<Event> = Vec::new();
    while events.last().map_or(1, event_revision) < current {
        let response = stream.message().await.ok()??;
        events.extend(response.events);
    }
    // The newest values by the other way too.
    for kv in range.kvs {
        let newest = events.iter().rev().find_map(|event| event.kv.as_ref().filter(|e| e.key == kv.key));
        assert_eq!(Some(&kv), newest, "a range and a watch must tell the same");
    }
    Some(events)
}

/// A file, half the time any, half the time by its size: the small ones matter too.
fn pick(files: &[(PathBuf, usize)]) -> &(PathBuf, usize) {
    let random = rand::random::<u64>() as usize;
    if rand::random() {
        return &files[random % files.len()];
    }
    let mut at = random % files.iter().map(|(_, used)| used).sum::<usize>();
    let holds = |(_, used): &&(PathBuf, usize)| {
        let inside = at < *used;
        at = at.saturating_sub(*used);
        inside
    };
    files.iter().find(holds).expect("within the sum of all")
}

fn bytes_flip(args: &[&str], place: &str, end: fn(&mut Server)) {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let (original, expected) = made(&args, end);
    let (mut refused, mut whole, mut repaired, mut cut) = (0, 0, 0, 0);
    let all_files: Vec<_> = files(&original.data_dir())
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains(place))
        .collect();
    assert!(!all_files.is_empty(), "there is nothing in {place}");
    for flip in 0..=setting("ETCFS_TEST_FLIPS", FLIPS) {
        let dir = original.scratch().join(format!("copy-{flip}"));
        command::run(
            Command::new("cp").args(["-a", "--sparse=always"]).arg(original.data_dir()).arg(&dir),
            b"",
        )
        .ok();
        let (file, used) = pick(&all_files);
        let copy = dir.join(file.strip_prefix(original.data_dir()).unwrap());
        let at = rand::random::<u64>() as usize % used;
        // The first copy is left as it is: what is refused must be so for the flip.
        if flip > 0 {
            let mut bytes = fs::read(&copy).unwrap();
            bytes[at] ^= 1 << (rand::random::<u8>() % 8);
            fs::write(&copy, bytes).unwrap();
        }
        let shown = format!("byte {at} of {used} of {}", copy.display());
        let options = Options { args: args.clone(), data_dir: Some(dir.clone()), ..Default::default() };
        let mut server = Server::prepared(Kind::Etcfs, options);
        match served(&mut server) {
            None => {
                assert_ne!(flip, 0, "an exact copy must serve");
                refused += 1;
            }
            Some(events) if events == expected && server.log().contains("set aside") => repaired += 1,
            Some(events) if events == expected => whole += 1,
            // The last record of the log looks like one that was never wholly written.
            Some(events) => {
                assert!(
                    expected.starts_with(&events) && events.len() + 1 >= expected.len(),
                    "{shown}: {} events of {}, not the true ones",
                    events.len(),
                    expected.len()
                );
                cut += 1;
            }
        }
        drop(server);
        fs::remove_dir_all(dir).unwrap();
    }
    show(&format!(
        "{place}: {refused} refused, {repaired} repaired, {whole} whole, {cut} without the last record"
    ));
}

#[test]
fn a_flipped_byte_in_the_log_is_never_served() {
    bytes_flip(&[], "/wal/", Server::kill);
}

/// Stopped in order, so that all of the state is in the image and nothing is left to replay.
#[test]
fn a_flipped_byte_in_the_image_is_never_served() {
    bytes_flip(&[], "/image/", |server| assert!(server.stop().success()));
}

/// With a short log, so that the snapshot and what purged the log are in use.
#[test]
fn a_flipped_byte_anywhere_is_never_served() {
    bytes_flip(&["--snapshot-count=50"], "/member/", Server::kill);
}
