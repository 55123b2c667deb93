//! Every example of the README and of the manual pages, run as it stands, on a machine whose ports and directories
//! are the example's own.

use std::{fmt::Write as _, fs, path::Path};

use etcfs_tests::{
    binary, machine,
    overlay::{self, Ground},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A command of an example, and what is shown to come of it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// Commands behind prompts, each with the lines up to the next one.
fn session(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
            (None, Some(step)) if step.command.ends_with('\\') => {
                step.command.push('\n');
                step.command.push_str(line);
            }
            (None, Some(step)) => step.output.push(line.to_owned()),
            (None, None) => panic!("an example begins with a prompt: {line}"),
        }
    }
    steps
}

/// Commands without prompts, of which nothing is shown.
fn commands(text: &str) -> Vec<Step> {
    let whole = text.replace("\\\n", "\\\u{0}");
    let step = |line: &str| Step { command: line.replace('\u{0}', "\n"), output: Vec::new() };
    whole.lines().filter(|line| !line.trim().is_empty()).map(step).collect()
}

/// What waits until a command in the background has come up.
fn ready(command: &str) -> &'static str {
    match command.split_whitespace().collect::<Vec<_>>()[..] {
        ["etcfs", "up", ..] => "until mountpoint -q keys; do read -rt 0.1 <> <(:) || true; done",
        ["etcfs", .., "migrate", "new:2379", "&"] => {
            "until etcfs --endpoints new:2379 get greeting | grep -q hello; do :; done"
        }
        ["etcfsd", .., "http://10.0.0.1:2379", "&"] => "served 10.0.0.1:2379",
        ["etcfsd", ..] => "served 127.0.0.1:2379",
        _ => "true",
    }
}

/// Runs steps one after the other in one shell, and compares what they print.
fn replay(name: &str, before: &str, steps: &[Step]) {
    machine::needs_fuse();
    let mut script = format!(
        "served() {{ until curl -sf http://$1/health | grep -q true; do read -rt 0.1 <> <(:) || true; done; }}\n\
         cp {} /sbin/mount.etcfs\n{before}\n",
        binary::mount_etcfs().display()
    );
    for (number, Step { command, .. }) in steps.iter().enumerate() {
        let without_comment = command.split(" #").next().unwrap_or_default().trim_end();
        let line = match without_comment.strip_suffix('&') {
            Some(command) => format!("{command} >/scratch/{number}.log 2>&1 &\n{}", ready(without_comment)),
            None => command.clone(),
        };
        write!(
            script,
            "echo '= {number}'\nset +e\n{{ {line}\n}} 2>&1\ncode=$?\nset -e\necho; echo \"= code $code\"\n"
        )
        .expect("memory");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    machine::open_to_all(dir.path());
    let said = overlay::run(dir.path(), Ground::Tested, &script);
    for (number, Step { command, output }) in steps.iter().enumerate() {
        let (_, rest) = said.split_once(&format!("= {number}\n")).expect("each step is run");
        let (printed, rest) = rest.split_once("\n= code ").expect("each step ends");
        let code: i32 = rest.lines().next().and_then(|code| code.parse().ok()).expect("a number");
        // diff says by 1 that it found something.
        let allowed = i32::from(command.starts_with("diff "));
        assert!(code <= allowed, "{name}: `{command}` ends with {code}: {printed}");
        let shown = output.join("\n");
        if !shown.trim().is_empty() || name == "README.md" {
            assert!(alike(shown.trim_end(), printed.trim_end()), "{name}: `{command}` prints\n{printed}");
        }
    }
}

/// Whether a text is as shown, where `[..]` stands for anything within a line.
fn alike(shown: &str, printed: &str) -> bool {
    let line = |(shown, printed): (&str, &str)| {
        let mut parts = shown.split("[..]");
        let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let mut last = None;
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            last = Some(part);
            rest = behind;
        }
        rest.is_empty() || last == Some("")
    };
    shown.lines().count() == printed.lines().count() && shown.lines().zip(printed.lines()).all(line)
}

/// The fenced blocks of a document, each with what stands behind its fence.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The examples of a manual page, in order, each behind the section that it stands in: displays, and lines of their
/// own, which begin a new one.
fn displays(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(".Sh ") {
            name.clone_into(&mut section);
        } else if let Some(line) = line.strip_prefix(".Dl ") {
            found.push((section.clone(), format!("{line}\n")));
        } else if line.starts_with(".Bd -literal") {
            open = Some(String::new());
        } else if line == ".Ed" {
            found.extend(open.take().map(|text| (section.clone(), text)));
        } else if let Some(text) = &mut open {
            text.push_str(&line.replace("\\e", "\\").replace("\\(dq", "\""));
            text.push('\n');
        }
    }
    found
}

/// Those of the section that is there for them.
fn examples(page: &str) -> Vec<String> {
    displays(page).into_iter().filter(|(section, _)| section == "EXAMPLES").map(|(_, text)| text).collect()
}

/// Those of all others.
fn asides(page: &str) -> Vec<String> {
    displays(page).into_iter().filter(|(section, _)| section != "EXAMPLES").map(|(_, text)| text).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn mounted_keys_are_as_the_readme_shows() {
    let readme = read("README.md");
    let mut sessions = 0;
    for (kind, text) in blocks(&readme) {
        match kind.as_str() {
            "console" => {
                replay("README.md", "", &session(&text));
                sessions += 1;
            }
            // What is run from a checkout: by the programs that cargo would have built.
            "sh" => {
                let text = text.replace("cargo run --release -- ", "etcfs ");
                for step in commands(&text) {
                    let line = step.command.split(" #").next().unwrap_or_default().trim();
                    let known = SH.iter().find(|(known, _)| *known == line);
                    let (_, how) =
                        known.unwrap_or_else(|| panic!("README.md: nobody knows how to run `{line}`"));
                    if let Some((before, command)) = how {
                        replay("a line of README.md", before, &commands(command));
                    }
                }
            }
            other => panic!("README.md: a block of kind {other:?}: console is replayed, sh is run"),
        }
    }
    assert!(sessions > 0);
}

/// A preparation, and the command as the test runs it.
type How = Option<(&'static str, &'static str)>;

/// The README's single lines; those without a way are what runs the tests, or build what is tested.
const SH: &[(&str, How)] = &[
    ("etcfs up ./keys", Some(("", "etcfs up ./keys &"))),
    ("tests/run", None),
    (
        "etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379 --pid-a PID --pid-b PID \
         --ops put --clients 1000 --connections 100 --total 100000",
        Some((
            TWO_SERVERS,
            "etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379 --pid-a $first --pid-b $second \
             --ops put --clients 1000 --connections 100 --total 1000 --rounds 1",
        )),
    ),
    (
        "etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379 --pid-a PID --pid-b PID \
         --ops range-l --clients 1000 --connections 100 --total 200000",
        Some((
            TWO_SERVERS,
            "etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379 --pid-a $first --pid-b $second \
             --ops range-l --clients 1000 --connections 100 --total 2000 --rounds 1",
        )),
    ),
    (
        "etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379 --pid-a PID --pid-b PID \
         --ops watch --clients 8 --connections 100 --watchers 10000 --total 200",
        Some((
            TWO_SERVERS,
            "etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379 --pid-a $first --pid-b $second \
             --ops watch --clients 8 --connections 100 --watchers 200 --total 20 --rounds 1",
        )),
    ),
    (
        "etcfs bench fs --pid PID /mnt",
        Some((
            A_MOUNT,
            "etcfs bench fs --pid $mount /mnt --files 20 --tree 40 --calls 10 --rounds 1 --beside /scratch",
        )),
    ),
];

const A_MOUNT: &str = "\
etcfsd --data-dir /scratch/one >/scratch/one.log 2>&1 &
served 127.0.0.1:2379
mount.etcfs -f 127.0.0.1:2379:/ /mnt >/scratch/mount.log 2>&1 & mount=$!
until mountpoint -q /mnt; do read -rt 0.1 <> <(:) || true; done
";

const ONE_SERVER: &str =
    "etcfsd --data-dir /scratch/one >/scratch/one.log 2>&1 & first=$!\nserved 127.0.0.1:2379\n";
const TWO_SERVERS: &str = "\
etcfsd --data-dir /scratch/one >/scratch/one.log 2>&1 & first=$!
etcfsd --data-dir /scratch/two --listen-client-urls http://127.0.0.1:22379 --advertise-client-urls http://127.0.0.1:22379 \
 --listen-peer-urls http://127.0.0.1:22380 --initial-advertise-peer-urls http://127.0.0.1:22380 \
 --initial-cluster default=http://127.0.0.1:22380 >/scratch/two.log 2>&1 & second=$!
served 127.0.0.1:2379
served 127.0.0.1:22379
";

#[test]
fn mounted_or_not_each_example_of_etcfs_runs() {
    let found = examples(&read("man/etcfs.1"));
    assert!(found.len() > 2);
    for example in found {
        let before = match () {
            () if example.contains("22379") => TWO_SERVERS,
            () if example.contains("etcfs up") => "",
            () => ONE_SERVER,
        };
        replay("etcfs.1", before, &commands(&example));
    }
}

#[test]
fn contexts_and_a_migration_are_as_the_manual_says() {
    let found = asides(&read("man/etcfs.1"));
    let [contexts, copy, finish] = &found[..] else { panic!("a file and two commands: {found:?}") };
    // The file is what the command writes.
    let before = format!("export XDG_CONFIG_HOME=/scratch\ncat >/scratch/shown <<'END'\n{contexts}END");
    let set = "etcfs context set prod endpoints=10.0.0.1:2379,10.0.0.2:2379 user=alice password-file=/home/alice/.prod";
    let steps = format!("{set}\netcfs context use prod\ncmp /scratch/shown /scratch/etcfs/config.yaml\n");
    replay("etcfs.1, CONTEXTS", &before, &commands(&steps));

    let found = format!("$ {} &\n$ {finish}", copy.trim_end());
    let look = "$ etcfs --endpoints new:2379 get --print-value-only greeting\nhello\n";
    replay("etcfs.1, MIGRATION", OLD_AND_NEW, &session(&format!("{found}{look}")));
}

/// An etcd called old, and an etcfsd called new.
const OLD_AND_NEW: &str = "\
for host in 10.0.0.1 10.0.0.2; do ip address add $host/32 dev lo; done
printf '10.0.0.1 old\\n10.0.0.2 new\\n' >>/etc/hosts
etcd --data-dir /scratch/old --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379 \
 >/scratch/old.log 2>&1 &
served old:2379
etcfs --endpoints old:2379 put greeting hello
etcfsd --data-dir /scratch/new --listen-client-urls http://10.0.0.2:2379 --advertise-client-urls http://10.0.0.2:2379 \
 --listen-peer-urls http://10.0.0.2:2380 --initial-advertise-peer-urls http://10.0.0.2:2380 \
 --initial-cluster default=http://10.0.0.2:2380 >/scratch/new.log 2>&1 &
served new:2379
";

#[test]
fn a_mounted_directory_is_used_as_its_manual_page_says() {
    let before = format!(
        "{ONE_SERVER}etcfs bench put --total 250 --keys 3 --prefix /filler >/dev/null\n\
         mkdir /scratch/mnt; mount.etcfs 127.0.0.1:2379:/ /scratch/mnt; cd /scratch/mnt; mkdir jobs"
    );
    let page = read("man/etcfs.7");
    for example in examples(&page) {
        replay("etcfs.7", &before, &session(&example));
    }
    let found = asides(&page);
    let [follow] = &found[..] else { panic!("a command that follows a file: {found:?}") };
    // Its output is that of the second step.
    let follow = format!("$ echo one > jobs/job1\n{} &\n", follow.trim_end());
    let look = "until grep -q $value /scratch/1.log; do read -rt 0.1 <> <(:) || true; done";
    let change = format!("$ for value in one two three; do echo $value > jobs/job1; {look}; done\n");
    replay("etcfs.7", &before, &session(&format!("{follow}{change}")));
}

#[test]
fn each_example_of_the_server_runs() {
    let before = "ip address add 10.0.0.1/32 dev lo; mount -t tmpfs var /var/lib";
    let page = read("man/etcfsd.8");
    let found = examples(&page);
    assert!(found.len() > 1 && asides(&page).is_empty());
    for example in found {
        let steps = commands(&example)
            .into_iter()
            .map(|step| Step { command: format!("{} &", step.command), ..step });
        replay("etcfsd.8", before, &steps.collect::<Vec<_>>());
    }
}

#[test]
fn each_file_of_settings_is_read_as_its_manual_page_says() {
    let page = read("man/etcfs.conf.5");
    let (found, files) = (asides(&page), examples(&page));
    let [file, print] = &found[..] else { panic!("a file and a command: {found:?}") };
    for example in files.iter().chain([file]) {
        let before = format!("cat >/etc/etcfs.conf <<'END'\n{example}END");
        let again = "etcfsd --config-file /etc/etcfs.conf --print-config >/scratch/one\n\
                     etcfsd --config-file /scratch/one --print-config >/scratch/two\ncmp /scratch/one /scratch/two\n";
        replay("etcfs.conf.5", &before, &commands(&format!("{print}{again}")));
    }
}

#[test]
fn keys_are_mounted_as_the_manual_page_of_mount_says() {
    let before = format!("{ONE_SERVER}etcfs put /project/a 1\n");
    let page = read("man/mount.etcfs.8");
    let found = examples(&page);
    let [command, line] = &found[..] else { panic!("two examples: {found:?}") };
    assert!(asides(&page).is_empty());
    let look = "$ cat /mnt/a\n1\n$ umount /mnt\n";
    replay("mount.etcfs.8", &before, &session(&format!("{command}{look}")));
    let fstab = format!("# echo '{}' >>/etc/fstab\n# mount -a\n{look}", line.trim_end());
    replay("mount.etcfs.8", &before, &session(&fstab));
}

#[test]
fn examples_are_read_as_they_are_written() {
    let steps = session("$ a\nx\ny\n$ b \\\n  c\n");
    assert_eq!(steps[0], Step { command: "a".into(), output: vec!["x".into(), "y".into()] });
    assert_eq!(steps[1].command, "b \\\n  c");
    assert_eq!(commands("a \\\n b\n\nc\n").len(), 2);
    assert!(alike("a [..] c\nd", "a b b c\nd"));
    assert!(alike("a[..]", "abc") && !alike("a[..]c", "abcd") && !alike("a", "a\nb"));
    assert_eq!(blocks("x\n```sh\ny\n```\n"), [("sh".to_owned(), "y\n".to_owned())]);
    assert_eq!(
        examples("\n.Sh EXAMPLES\n.Dl # x\n.Bd -literal\na \\e\nb\n.Ed\n.Sh SEE\n.Dl y\n"),
        ["# x\n", "a \\\nb\n"]
    );
    assert_eq!(asides(".Sh A\n.Dl x\n.Sh EXAMPLES\n.Dl y\n"), ["x\n"]);
}
