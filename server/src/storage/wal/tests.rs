//! Recovery, matrix by matrix: what a power cut may leave, and what rot may.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use proptest::prelude::*;

use super::*;

const SEGMENT: usize = 16 << 10;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT,
        on_failure: Arc::new(|error| panic!("{error}")),
        ..WalOptions::default()
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, node: 0, index }
}

fn entry(index: u64, payload: &[u8]) -> WalEntry {
    WalEntry { id: id(1, index), kind: 2, payload: Bytes::copy_from_slice(payload) }
}

/// Appends, and waits for the sync.
fn append(wal: &Wal, entries: Vec<WalEntry>) -> Result<(), WalError> {
    let (tx, rx) = mpsc::channel();
    wal.append(entries, Box::new(move |result| tx.send(result).expect("waited for")));
    rx.recv().expect("always called")
}

fn vote(wal: &Wal, vote: Vote) {
    let (tx, rx) = mpsc::channel();
    wal.save_vote(vote, Box::new(move |result| tx.send(result).expect("waited for")));
    rx.recv().expect("always called").expect("saved");
}

fn fill(wal: &Wal, range: Range<u64>, bytes: usize) {
    for index in range {
        append(wal, vec![entry(index, &vec![index as u8 | 1; bytes])]).expect("appended");
    }
}

/// What recovery alone makes of a copy of `from` after `spoil`.
fn recovered(from: &Path, spoil: impl FnOnce(&Path)) -> Result<Option<u64>, WalError> {
    let copy = copied(from);
    spoil(copy.path());
    let found = recover::recover(&OsDisk, copy.path(), SEGMENT)?.expect("a log");
    Ok(found.index.last.map(|id| id.index))
}

fn copied(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("temp dir");
    for file in segments(from) {
        fs::copy(&file, copy.path().join(file.file_name().expect("named"))).expect("copied");
    }
    copy
}

/// Opens a copy of `from` after `spoil`, and gives the log's last index or the error.
fn reopen(from: &Path, spoil: impl FnOnce(&Path)) -> Result<Option<u64>, WalError> {
    let copy = copied(from);
    spoil(copy.path());
    let wal = Wal::open(copy.path(), options())?;
    let last = wal.last().map(|id| id.index);
    // What is there reads back, and the log goes on.
    let first = wal.purged().map_or(0, |id| id.index + 1);
    let next = last.map_or(0, |last| last + 1);
    wal.read(first..next)?;
    append(&wal, vec![entry(next, b"more")])?;
    wal.close();
    let again = Wal::open(copy.path(), options())?;
    assert_eq!(again.last().map(|id| id.index), Some(next));
    again.close();
    Ok(last)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    segment::list(&OsDisk, dir)
        .expect("listed")
        .into_iter()
        .map(|number| segment::path_of(dir, number))
        .collect()
}

fn last_segment(dir: &Path) -> PathBuf {
    segments(dir).pop().expect("one")
}

fn used(file: &Path) -> usize {
    fs::read(file).expect("read").iter().rposition(|&byte| byte != 0).expect("a head") + 1
}

/// Takes away what stands behind the last sync and says that it was made: then it may not have been.
fn unprove(bytes: &mut [u8]) {
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("a head") + 1;
    bytes[end - record::framed_bytes(0)..].fill(0);
}

fn edit(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("read");
    change(&mut bytes);
    fs::write(file, bytes).expect("written");
}

#[test]
fn entries_votes_and_commits_survive_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    let voted = Vote { term: 7, node: Some(3), committed: true };
    vote(&wal, voted);
    append(&wal, vec![entry(0, b"a"), entry(1, b"b"), entry(2, b"c")]).expect("appended");
    wal.hint_committed(Some(id(1, 1)));
    wal.close();
    let wal = Wal::open(dir.path(), options()).expect("opened");
    assert_eq!((wal.vote(), wal.committed(), wal.last()), (Some(voted), Some(id(1, 1)), Some(id(1, 2))));
    assert_eq!(wal.read(0..3).expect("read"), [entry(0, b"a"), entry(1, b"b"), entry(2, b"c")]);
    assert!(matches!(wal.read(2..4), Err(WalError::NoSuchEntry { index: 3 })));
    wal.close();
}

#[test]
fn a_tail_torn_at_any_byte_loses_the_torn_record_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"kept")]).expect("appended");
    let file = last_segment(dir.path());
    let start = used(&file) - record::framed_bytes(0);
    append(&wal, vec![entry(1, &[0xab; 700])]).expect("appended");
    wal.close();
    let end = used(&file) - record::framed_bytes(0);
    for at in start..end {
        let zeroed = recovered(dir.path(), |copy| edit(&last_segment(copy), |bytes| bytes[at..].fill(0)));
        assert_eq!(zeroed.expect("torn"), Some(0), "zeros from byte {at}");
        if at % 64 == 0 {
            let cut = reopen(dir.path(), |copy| edit(&last_segment(copy), |bytes| bytes.truncate(at)));
            assert_eq!(cut.expect("torn"), Some(0), "file cut at byte {at}");
        }
    }
    assert_eq!(reopen(dir.path(), |_| ()).expect("whole"), Some(1));
}

#[test]
fn a_hole_in_the_last_write_is_a_torn_tail() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"kept")]).expect("appended");
    let file = last_segment(dir.path());
    // One write of several records, of which later sectors reached the disk and an earlier did not.
    append(&wal, (1..6).map(|index| entry(index, &[0xcd; 900])).collect()).expect("appended");
    wal.close();
    let hole = (used(&file) / 2).next_multiple_of(512);
    let last = reopen(dir.path(), |copy| {
        edit(&last_segment(copy), |bytes| {
            unprove(bytes);
            bytes[hole..hole + 512].fill(0);
        });
    });
    assert!(last.expect("torn").is_some_and(|last| last < 5));
    let synced =
        reopen(dir.path(), |copy| edit(&last_segment(copy), |bytes| bytes[hole..hole + 512].fill(0)));
    assert!(matches!(synced, Err(WalError::Corrupt { .. })), "{synced:?}");
}

/// The log used to judge an unsynced rest by its looks, called this one damage, and the member
/// refused to start: two writes without a sync, of which the disk took the later alone.
#[test]
fn a_write_that_is_lost_before_one_that_is_there_is_a_torn_tail() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"kept")]).expect("appended");
    let file = last_segment(dir.path());
    let hint = used(&file) - record::framed_bytes(0);
    wal.hint_committed(Some(id(1, 0)));
    vote(&wal, Vote { term: 7, node: Some(3), committed: false });
    wal.close();
    let last = reopen(dir.path(), |copy| {
        edit(&last_segment(copy), |bytes| {
            unprove(bytes);
            bytes[hint..hint + record::framed_bytes(0)].fill(0);
        });
    });
    assert_eq!(last.expect("torn"), Some(0));
}

/// What stands behind a sync is overwritten: where that is lost, what comes after it does not count.
#[test]
fn nothing_is_read_behind_the_proof_of_a_sync() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"kept")]).expect("appended");
    let file = last_segment(dir.path());
    let end = used(&file);
    let place = end - record::framed_bytes(0)..end;
    let proof = fs::read(&file).expect("read")[place.clone()].to_vec();
    // One write of two records, the first as long as the proof in whose place it comes.
    append(&wal, vec![entry(1, b""), entry(2, b"lost")]).expect("appended");
    wal.close();
    let lost = |prove: bool| {
        let (proof, place) = (&proof, place.clone());
        reopen(dir.path(), move |copy| {
            edit(&last_segment(copy), |bytes| {
                if !prove {
                    unprove(bytes);
                }
                bytes[place].copy_from_slice(proof);
            });
        })
    };
    assert_eq!(lost(false).expect("torn"), Some(0));
    assert!(matches!(lost(true), Err(WalError::Corrupt { .. })), "it had been synced");
}

/// A sector of zeros used to be taken for one that was never written, though a value may hold it:
/// then one flipped byte took acknowledged entries away.
#[test]
fn a_flipped_byte_in_zeros_that_were_synced_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, &[0; 4096])]).expect("appended");
    // As a kill leaves it.
    let flipped = recovered(dir.path(), |copy| edit(&last_segment(copy), |bytes| bytes[1000] ^= 1));
    assert!(matches!(flipped, Err(WalError::Corrupt { .. })), "{flipped:?}");
    wal.close();
}

/// The log used to call this damage, and the member refused to start.
#[test]
fn a_write_whose_first_sector_is_lost_is_a_torn_tail() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"kept")]).expect("appended");
    let begins = used(&last_segment(dir.path())) - record::framed_bytes(0);
    append(&wal, vec![entry(1, &[9; 1200])]).expect("appended");
    wal.close();
    let lost = begins..begins.next_multiple_of(512);
    assert!(!lost.is_empty(), "the write begins within a sector");
    let last = reopen(dir.path(), |dir| {
        edit(&last_segment(dir), |bytes| {
            unprove(bytes);
            bytes[lost].fill(0);
        });
    });
    assert_eq!(last.expect("whole"), Some(0));
}

/// Raft used to ask for the entries up to it, and the member refused to start.
#[test]
fn a_commit_whose_entries_are_lost_is_taken_back_to_those_that_are_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"kept")]).expect("appended");
    let begins = used(&last_segment(dir.path())) - record::framed_bytes(0);
    wal.hint_committed(Some(id(1, 2)));
    append(&wal, vec![entry(1, &[9; 600]), entry(2, &[9; 600])]).expect("appended");
    wal.close();
    let lost = begins + record::framed_bytes(0);
    let copy = copied(dir.path());
    edit(&last_segment(copy.path()), |bytes| bytes[lost..].fill(0));
    let wal = Wal::open(copy.path(), options()).expect("torn, not damaged");
    assert_eq!((wal.last(), wal.committed()), (Some(id(1, 0)), Some(id(1, 0))));
    wal.close();
}

/// The image once ran ahead of a log that a kill cut short, and nothing joined the two.
#[test]
fn an_entry_is_held_once_it_is_on_disk_itself() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    append(&wal, vec![entry(0, b"a"), entry(1, b"b")]).expect("appended");
    let holds = |id| {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(wal.holds(id)).poll(&mut context).is_ready()
    };
    assert!(holds(id(1, 0)) && holds(id(1, 1)) && !holds(id(1, 2)));
    assert!(!holds(id(2, 1)), "another entry is at its place still");
    wal.truncate(Some(id(1, 0)));
    append(&wal, vec![WalEntry { id: id(2, 1), ..entry(1, b"c") }]).expect("appended");
    assert!(holds(id(2, 1)) && !holds(id(1, 1)));
    wal.purge(id(2, 1));
    append(&wal, vec![WalEntry { id: id(2, 2), ..entry(2, b"d") }]).expect("appended");
    assert!(holds(id(1, 0)), "purged");
    wal.close();
}

#[test]
fn a_flipped_byte_in_what_was_synced_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    fill(&wal, 0..4, 100);
    wal.close();
    let end = used(&last_segment(dir.path()));
    for at in 0..end {
        let flipped = recovered(dir.path(), |copy| edit(&last_segment(copy), |bytes| bytes[at] ^= 0x10));
        match flipped {
            Err(WalError::Corrupt { .. } | WalError::Format { .. }) => {}
            // What says that all before it was synced says nothing else of worth.
            Ok(Some(3)) if at >= end - record::framed_bytes(0) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever has become of a file, what is read of it was written, or it is refused.
    #[test]
    fn a_spoilt_file_is_refused_or_read_as_it_was(
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().expect("temp dir");
        let wal = Wal::open(dir.path(), options()).expect("opened");
        fill(&wal, 0..9, 40);
        wal.close();
        let file = last_segment(dir.path());
        let end = used(&file);
        let found = recovered(dir.path(), |dir| edit(&last_segment(dir), |bytes| {
            for (at, byte) in &spots {
                bytes[at.index(end)] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(end));
            }
        }));
        if let Ok(last) = found {
            prop_assert!(last.is_none_or(|last| last < 9), "{last:?}");
        }
    }
}

#[test]
fn segments_rotate_and_a_missing_one_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    fill(&wal, 0..60, 1000);
    wal.close();
    let files = segments(dir.path());
    assert!(files.len() >= 4, "{files:?}");
    assert_eq!(reopen(dir.path(), |_| ()).expect("whole"), Some(59));
    for missing in &files {
        let name = missing.file_name().expect("named").to_owned();
        let gone = reopen(dir.path(), |copy| fs::remove_file(copy.join(name)).expect("removed"));
        assert!(matches!(gone, Err(WalError::MissingSegment { .. })), "{}: {gone:?}", missing.display());
    }
    // Damage before the last segment is never a torn tail.
    let name = files[1].file_name().expect("named").to_owned();
    let torn = reopen(dir.path(), |copy| edit(&copy.join(name), |bytes| bytes[SEGMENT / 2..].fill(0)));
    assert!(matches!(torn, Err(WalError::Corrupt { .. })), "{torn:?}");
}

#[test]
fn a_rotation_cut_before_its_seal_leaves_the_log_whole() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    fill(&wal, 0..14, 1000);
    wal.close();
    assert_eq!(segments(dir.path()).len(), 1);
    let staged = Staged { last: Some(id(1, 14)), ..Staged::default() };
    let last = reopen(dir.path(), |copy| {
        let spare = Spare::create(&OsDisk, copy, SEGMENT).expect("made");
        Segment::create(&OsDisk, copy, spare, 2, &writer::head(2, &staged)).expect("made");
    });
    assert_eq!(last.expect("whole"), Some(13));
}

#[test]
fn purging_drops_whole_segments_and_keeps_what_matters_of_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    let voted = Vote { term: 2, node: Some(9), committed: false };
    vote(&wal, voted);
    fill(&wal, 0..60, 1000);
    let before = segments(dir.path()).len();
    let bytes = wal.bytes_after(None);
    wal.purge(id(1, 40));
    vote(&wal, voted);
    assert!(segments(dir.path()).len() < before);
    assert!(wal.bytes_after(None) < bytes && wal.bytes_after(Some(58)) < 1100);
    assert!(matches!(wal.read(40..41), Err(WalError::NoSuchEntry { .. })));
    assert_eq!(wal.read(41..60).expect("read").len(), 19);
    fill(&wal, 60..90, 1000);
    wal.purge(id(1, 200));
    wal.close();
    let wal = Wal::open(dir.path(), options()).expect("opened");
    assert_eq!((wal.purged(), wal.last(), wal.vote()), (Some(id(1, 200)), Some(id(1, 200)), Some(voted)));
    fill(&wal, 201..203, 10);
    wal.close();
}

#[test]
fn a_truncated_tail_stays_away_and_is_written_anew() {
    let dir = tempfile::tempdir().expect("temp dir");
    let wal = Wal::open(dir.path(), options()).expect("opened");
    fill(&wal, 0..40, 1000);
    wal.truncate(Some(id(1, 9)));
    let again = WalEntry { id: id(2, 10), kind: 2, payload: "anew".into() };
    append(&wal, vec![again.clone()]).expect("appended");
    assert_eq!(wal.last(), Some(id(2, 10)));
    wal.close();
    let wal = Wal::open(dir.path(), options()).expect("opened");
    assert_eq!((wal.last(), wal.read(10..11).expect("read")), (Some(id(2, 10)), vec![again]));
    wal.truncate(None);
    fill(&wal, 0..2, 10);
    wal.close();
    assert_eq!(reopen(dir.path(), |_| ()).expect("whole"), Some(1));
}

#[test]
fn a_failed_sync_acknowledges_nothing_from_then_on() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (broken, reports) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let failing = WalOptions {
        fdatasync: Arc::new({
            let broken = broken.clone();
            move |file: &dyn DiskFile| match broken.load(Ordering::SeqCst) {
                true => Err(io::Error::from_raw_os_error(libc::EIO)),
                false => file.sync_data(),
            }
        }),
        on_failure: Arc::new({
            let reports = reports.clone();
            move |error| {
                assert!(matches!(error, WalError::Io { doing: "sync", .. }), "{error}");
                reports.fetch_add(1, Ordering::SeqCst);
            }
        }),
        ..options()
    };
    let wal = Wal::open(dir.path(), failing).expect("opened");
    append(&wal, vec![entry(0, b"a")]).expect("appended");
    broken.store(true, Ordering::SeqCst);
    append(&wal, vec![entry(1, b"b")]).expect_err("not synced");
    broken.store(false, Ordering::SeqCst);
    append(&wal, vec![entry(2, b"c")]).expect_err("the disk's word is no longer taken");
    assert_eq!(reports.load(Ordering::SeqCst), 1);
    wal.close();
}

#[test]
fn one_sync_serves_all_that_wait() {
    let dir = tempfile::tempdir().expect("temp dir");
    let syncs = Arc::new(AtomicUsize::new(0));
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let counting = WalOptions {
        fdatasync: Arc::new({
            let syncs = syncs.clone();
            move |_: &dyn DiskFile| {
                // The first sync waits until all the others have queued up.
                if syncs.fetch_add(1, Ordering::SeqCst) == 0 {
                    held.lock().recv().expect("released");
                }
                Ok(())
            }
        }),
        ..options()
    };
    let wal = Wal::open(dir.path(), counting).expect("opened");
    let (tx, rx) = mpsc::channel();
    for index in 0..10 {
        let tx = tx.clone();
        wal.append(
            vec![entry(index, b"x")],
            Box::new(move |result| tx.send((index, result.is_ok())).expect("waited for")),
        );
    }
    hold.send(()).expect("held");
    let done: Vec<_> = (0..10).map(|_| rx.recv().expect("called")).collect();
    assert_eq!(done, (0..10).map(|index| (index, true)).collect::<Vec<_>>());
    assert!(syncs.load(Ordering::SeqCst) <= 2 + 1, "{} syncs", syncs.load(Ordering::SeqCst));
    wal.close();
}

/// Has room for no further file while it is full.
#[derive(Debug, Default)]
struct SmallDisk {
    is_full: AtomicBool,
}

impl Disk for SmallDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        OsDisk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        OsDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        OsDisk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
}

/// A log on a full disk, and what comes of an entry that waits for room there.
fn waiting(disk: Arc<SmallDisk>, dir: &Path) -> (Wal, mpsc::Receiver<Result<(), WalError>>) {
    let wal = Wal::open(dir, WalOptions { disk: disk.clone(), ..options() }).expect("opened");
    fill(&wal, 0..1, 100);
    disk.is_full.store(true, Ordering::Relaxed);
    // The segment, and the one made ahead if there is one already, hold a few of these.
    for index in 1.. {
        let (tx, rx) = mpsc::channel();
        let done = Box::new(move |result| tx.send(result).expect("waited for"));
        wal.append(vec![entry(index, &[7; SEGMENT / 3])], done);
        match rx.recv_timeout(Duration::from_millis(500)) {
            Ok(appended) => appended.expect("there was room"),
            Err(_waits) => return (wal, rx),
        }
    }
    unreachable!("the disk is full")
}

#[test]
fn a_full_disk_holds_appends_up_and_reads_go_on() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::<SmallDisk>::default());
    let (wal, waits) = waiting(disk.clone(), dir.path());
    let last = wal.last().expect("some are there").index;
    assert_eq!(wal.read(0..last + 1).unwrap().len() as u64, last + 1);
    assert!(waits.try_recv().is_err(), "nothing is acknowledged without room");
    disk.is_full.store(false, Ordering::Relaxed);
    waits.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    wal.close();
    assert_eq!(wal.last(), Some(id(1, last + 1)));
}

/// A failed log ends its process: here that would be a panic.
#[test]
fn a_log_that_waits_for_room_can_be_closed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::<SmallDisk>::default());
    let (wal, waits) = waiting(disk.clone(), dir.path());
    let last = wal.last();
    wal.close();
    assert!(matches!(waits.recv().unwrap(), Err(WalError::Closed)));
    disk.is_full.store(false, Ordering::Relaxed);
    let wal = Wal::open(dir.path(), options()).unwrap();
    assert_eq!(wal.last(), last);
    wal.close();
}
