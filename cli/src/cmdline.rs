//! What everybody else on the machine sees of this command line.
//!
//! etcdctl takes passwords as arguments, so we do. The kernel shows a process's
//! arguments where they lie in its memory; there each password is written over
//! as soon as the line is read, so it is seen for the blink of an eye at most.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
};

/// Options whose value is a password.
const PASSWORDS: [&str; 3] = ["--password", "--dest-password", "--new-user-password"];
/// Options whose value is a name, or a name, a colon and a password.
const USERS: [&str; 2] = ["--user", "--dest-user"];
/// Field of /proc/self/stat with the address of the arguments, counted behind the program's name.
const ARG_START: usize = 45;

/// Writes over the passwords of this process's command line; `all_behind` a word, over all that follows it.
///
/// What was read of the line before stays as it was; read later it has stars.
pub(crate) fn hide(all_behind: Option<&str>) -> io::Result<()> {
    let line = fs::read("/proc/self/cmdline")?;
    let secrets = secrets(&line, all_behind);
    if secrets.is_empty() {
        return Ok(());
    }
    let stat = fs::read("/proc/self/stat")?;
    let start = arg_start(&String::from_utf8_lossy(&stat)).ok_or(io::ErrorKind::InvalidData)?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    secrets.into_iter().try_for_each(|Range { start: from, end }| {
        let offset = u64::try_from(from).map_err(|_| io::ErrorKind::InvalidData)?;
        memory.write_all_at(&vec![b'*'; end - from], start + offset)
    })
}

fn arg_start(stat: &str) -> Option<u64> {
    // The program's name stands in brackets, and may hold some.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(ARG_START)?.parse().ok().filter(|&address| address != 0)
}

/// Where the passwords are in a line whose words each end with a zero.
fn secrets(line: &[u8], all_behind: Option<&str>) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut at = 0;
    // How much of the next word is one.
    let mut next = Part::None;
    let (mut is_user, mut is_add, mut is_all) = (false, false, false);
    for word in line.split(|&byte| byte == 0) {
        let end = at + word.len();
        let text = String::from_utf8_lossy(word);
        let (name, value) = match text.split_once('=') {
            Some((name, _)) if name.starts_with("--") => (name, Some(at + name.len() + 1)),
            _ => (&*text, None),
        };
        let is_of = |names: &[&str]| names.contains(&name);
        let of_option = match (is_of(&PASSWORDS), is_of(&USERS)) {
            (true, _) => Part::All,
            (_, true) => Part::BehindColon,
            _ => Part::None,
        };
        let (from, part) = match (std::mem::replace(&mut next, Part::None), value) {
            _ if is_all => (at, Part::All),
            (Part::None, Some(value)) => (value, of_option),
            (Part::None, None) if word.starts_with(b"-") => {
                next = of_option;
                (at, Part::None)
            }
            // `user add NAME:PASSWORD`, and the begins of those words.
            (Part::None, None) if is_add => (at, Part::BehindColon),
            (Part::None, None) => {
                is_add = is_user && "add".starts_with(&*text);
                is_user |= "user".starts_with(&*text);
                (at, Part::None)
            }
            (part, _) => (at, part),
        };
        let from = match part {
            Part::None => end,
            Part::All => from,
            Part::BehindColon => {
                let colon = line[from..end].iter().position(|&byte| byte == b':');
                colon.map_or(end, |colon| from + colon + 1)
            }
        };
        if from < end {
            secrets.push(from..end);
        }
        is_all |= all_behind == Some(&*text);
        at = end + 1;
    }
    secrets
}

#[derive(Clone, Copy)]
enum Part {
    None,
    All,
    BehindColon,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(line: &str, all_behind: Option<&str>) -> String {
        let mut bytes: Vec<u8> = line.bytes().map(|byte| if byte == b' ' { 0 } else { byte }).collect();
        bytes.push(0);
        for secret in secrets(&bytes, all_behind) {
            bytes[secret].fill(b'*');
        }
        bytes.pop();
        String::from_utf8(bytes).unwrap().replace('\0', " ")
    }

    #[test]
    fn passwords_are_told_from_all_else() {
        for (line, shown) in [
            ("etcfs --user root:pw get a:b", "etcfs --user root:** get a:b"),
            ("etcfs --user=root:p=w get a", "etcfs --user=root:*** get a"),
            ("etcfs --user root get k:v", "etcfs --user root get k:v"),
            ("etcfs get --password pw --user root a", "etcfs get --password ** --user root a"),
            ("etcfs --password=p:w=q get", "etcfs --password=***** get"),
            ("etcfs --password -x get", "etcfs --password ** get"),
            ("etcfs user add joe:pw", "etcfs user add joe:**"),
            ("etcfs u --endpoints=h:1 a joe:pw:q", "etcfs u --endpoints=h:1 a joe:****"),
            ("etcfs user add joe --new-user-password pw", "etcfs user add joe --new-user-password **"),
            ("etcfs user grant-role joe a:b", "etcfs user grant-role joe a:b"),
            (
                "etcfs make-mirror --dest-user=a:b --dest-password c x:1",
                "etcfs make-mirror --dest-user=a:* --dest-password * x:1",
            ),
            ("etcfs put user add:1", "etcfs put user add:1"),
        ] {
            assert_eq!(hidden(line, None), shown);
        }
    }

    #[test]
    fn of_a_line_that_is_being_typed_nothing_is_shown() {
        assert_eq!(hidden("etcfs -- etcfs --user root : pw", Some("--")), "etcfs -- ***** ****** **** * **");
    }

    #[test]
    fn the_address_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        assert_eq!(arg_start(&format!("1 (a) b) {}", fields.join(" "))), Some(48));
        assert_eq!(arg_start("1 (a) R 1"), None);
    }
}
