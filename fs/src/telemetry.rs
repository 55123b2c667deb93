//! Where the log goes: to stderr in the foreground, else to the system's log socket, where the journal listens.

use std::io;
use std::os::unix::net::UnixDatagram;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Overrides the level, in tracing's directives.
const LEVEL_VARIABLE: &str = "ETCFS_LOG";

const SYSTEM_LOG: &str = "/dev/log";

/// syslog(3): facility daemon, and a level.
const DAEMON: u8 = 3 << 3;

/// Starts logging. `verbose` for every step of every call.
pub(crate) fn start(foreground: bool, verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var(LEVEL_VARIABLE)
        .from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // Where a subscriber is set already (`etcfs` has its own), that one is used.
    let _set_already = if foreground {
        log.with_writer(io::stderr).try_init().is_err()
    } else {
        log.without_time()
            .with_target(false)
            .with_level(false)
            .with_writer(SystemLog::default())
            .try_init()
            .is_err()
    };
}

/// The system's log socket, opened again where the logger behind it was restarted.
#[derive(Default)]
struct SystemLog(Mutex<Option<UnixDatagram>>);

struct Line<'a> {
    log: &'a SystemLog,
    level: u8,
}

impl<'a> MakeWriter<'a> for SystemLog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { log: self, level: 6 }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line<'a> {
        let level = match *meta.level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            _ => 7,
        };
        Line { log: self, level }
    }
}

/// The subscriber writes each event at once.
impl io::Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut message =
            format!("<{}>mount.etcfs[{}]: ", DAEMON | self.level, std::process::id()).into_bytes();
        message.extend_from_slice(text.trim_ascii_end());
        let mut socket = self.log.0.lock();
        let sent = socket.as_ref().is_some_and(|socket| socket.send(&message).is_ok());
        if !sent {
            // A machine without a system log has nowhere to say so.
            *socket = open().ok();
            socket.as_ref().map(|socket| socket.send(&message));
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSTEM_LOG)?;
    // A log that is not read must not stop the mount.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
