//! `curl`, as scripts call a server's HTTP side with it.

use std::process::Command;

use crate::{
    command::{self, Followed},
    machine,
};

/// Separates the body from what curl says of it.
const MARK: &str = "\n--status--";

/// curl with the server that it asks.
#[derive(Clone, Debug)]
pub struct Curl {
    endpoint: String,
    headers: Vec<String>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Curl {
    /// At `127.0.0.1:PORT`.
    pub fn at(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), headers: Vec::new() }
    }

    /// The same with a further header, as `Name: value`.
    #[must_use]
    pub fn header(&self, header: impl Into<String>) -> Self {
        let mut more = self.clone();
        more.headers.push(header.into());
        more
    }

    /// `curl -d BODY`, with the content type that this gives it.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        // By its standard input: an argument has a length limit.
        self.ask(path, &["--data-binary", "@-"], body.as_bytes())
    }

    /// A request with curl's own flags.
    pub fn ask(&self, path: &str, flags: &[&str], input: &[u8]) -> Answer {
        let mut curl = self.command(path);
        curl.args(["--max-time", "30", "--write-out", &format!("{MARK}%{{http_code}}")]).args(flags);
        let printed = command::run(&mut curl, input).ok();
        let (body, status) = printed.rsplit_once(MARK).expect("curl writes what it is told to");
        Answer { status: status.parse().expect("a status is a number"), body: body.to_owned() }
    }

    /// A call whose answers are read line by line as they come.
    pub fn follow(&self, path: &str, body: &str) -> Followed {
        Followed::start(self.command(path).args(["--no-buffer", "--data-binary", body]))
    }

    fn command(&self, path: &str) -> Command {
        let mut curl = Command::new(machine::program("curl"));
        curl.args(["--silent", "--show-error"]).arg(format!("http://{}{path}", self.endpoint));
        for header in &self.headers {
            curl.args(["--header", header]);
        }
        curl
    }
}
