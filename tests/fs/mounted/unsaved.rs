//! What is written and not saved yet: all of it to the process that wrote it, nothing of it to others.

use std::{fs, process::Command};

use etcfs_tests::{command, machine, mount::Mount, wait};

use super::Stage;

/// Writes through one descriptor and reads through others, by all that tells bytes and sizes.
const WRITER: &str = r#"
import errno, mmap, os, subprocess, sys, threading

def cat():
    return subprocess.run(["cat", "f"], capture_output=True).stdout

def read_all(fd):
    return os.pread(fd, 1 << 20, 0)

before = os.open("f", os.O_RDONLY)
writer = os.open("f", os.O_RDWR)
os.pwrite(writer, b"x" * 10000, 3)
text = b"old" + b"x" * 10000

def other_thread():
    fd = os.open("f", os.O_RDONLY)
    seen.append((read_all(fd), os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END), os.stat("f").st_size))
    os.close(fd)

seen = []
other_thread()
for _ in range(4):
    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
assert all(one == (text, len(text), len(text), len(text)) for one in seen), seen
assert len(seen) == 5 and cat() == b"old"
assert subprocess.run(["stat", "-c", "%s", "f"], capture_output=True).stdout == b"3\n"
assert read_all(before) == b"old"

reader = os.open("f", os.O_RDONLY)
assert os.pread(reader, 4, 0) == b"oldx"
try:
    with mmap.mmap(reader, 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == text, len(mapped)
    assert sys.argv[1] == "taken"
except OSError as error:
    assert error.errno == errno.ENODEV and sys.argv[1] == "refused", error
os.ftruncate(writer, 5)
appender = os.open("f", os.O_WRONLY | os.O_APPEND)
os.write(appender, b"y" * 5000)
text = b"oldxx" + b"y" * 5000
assert read_all(reader) == text == read_all(writer), (read_all(reader)[:20], read_all(writer)[:20])
assert cat() == b"old"
# One descriptor's bytes are one save, on what is there then.
os.close(writer)
assert cat() == b"oldxx", cat()
assert read_all(reader) == text
os.close(appender)
assert cat() == text == read_all(reader)
print("done")
"#;

/// A process reads what it has written
#[test]
fn a_mounted_file_shows_its_writer_what_is_not_saved_and_others_what_is() {
    let s = Stage::new();
    s.sh("printf old > f");
    let other = Mount::root(&s.server.endpoint());
    let mut python = Command::new(machine::program("python3"));
    let shared = if s.mount.maps_shared() { "taken" } else { "refused" };
    let run = command::run(python.args(["-c", WRITER, shared]).current_dir(s.mount.path()), b"");
    assert_eq!(run.ok(), "done\n");
    let saved = s.api.get("/f").expect("it is there");
    assert_eq!(saved.version, 3, "one for each save");
    assert_eq!(saved.value.len(), 5005);
    wait::until_true("the other mount shows it", || {
        fs::metadata(other.at("f")).is_ok_and(|file| file.len() == 5005)
    });
}

/// An open file is its revision
#[test]
fn a_file_that_is_read_and_overwritten_by_one_program_is_read_as_it_was() {
    let s = Stage::new();
    let lines: String = (0..3000).rev().map(|number| format!("line {number:05}\n")).collect();
    fs::write(s.mount.at("f"), &lines).expect("it is written");
    s.sh("sort < f > f");
    let sorted: String = (0..3000).map(|number| format!("line {number:05}\n")).collect();
    assert!(fs::read_to_string(s.mount.at("f")).expect("it is read") == sorted);
}
