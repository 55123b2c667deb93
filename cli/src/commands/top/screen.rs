//! A terminal with a page of its own, and as it was before once this is dropped.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::io::AsyncReadExt as _;

use crate::error::CliError;

#[derive(Debug)]
pub(super) struct Screen {
    /// How keys were read before.
    modes: Option<Termios>,
}

impl Screen {
    pub(super) fn open() -> Result<Self, CliError> {
        let mut screen = Self { modes: None };
        if io::stdin().is_terminal() {
            let before = tcgetattr(io::stdin()).map_err(io::Error::from)?;
            let mut modes = before.clone();
            // A key comes as it is pressed, and is not shown; Ctrl-C stays what it is.
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(io::stdin(), OptionalActions::Now, &modes).map_err(io::Error::from)?;
            screen.modes = Some(before);
        }
        // The other screen, without a cursor.
        print("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Shows as much of the page as there is room for.
    pub(super) fn show(&mut self, lines: &[String]) -> Result<(), CliError> {
        let (columns, rows) = match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        };
        let mut text = "\x1b[H".to_owned();
        for (number, line) in lines.iter().take(rows).enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&cut(line, columns));
            text.push_str("\x1b[0m\x1b[K");
        }
        text.push_str("\x1b[J");
        print(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs no repair.
        drop(print("\x1b[?25h\x1b[?1049l"));
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The beginning of a line that fits; what colours it takes no room.
fn cut(line: &str, columns: usize) -> String {
    let mut room = columns;
    let mut in_code = false;
    let fits = line.chars().take_while(|c| {
        match c {
            '\x1b' => in_code = true,
            'm' if in_code => in_code = false,
            _ if in_code => {}
            _ if room == 0 => return false,
            _ => room -= 1,
        }
        true
    });
    fits.collect()
}

/// Returns once somebody presses q.
pub(super) async fn quit() -> Result<(), CliError> {
    let mut keys = [0; 16];
    let mut stdin = tokio::io::stdin();
    loop {
        match stdin.read(&mut keys).await? {
            // Nobody is there to press anything.
            0 => std::future::pending().await,
            read if keys[..read].contains(&b'q') => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        assert_eq!(cut("\x1b[1mabc\x1b[0mdef", 4), "\x1b[1mabc\x1b[0md");
        assert_eq!(cut("abc", 80), "abc");
    }
}
