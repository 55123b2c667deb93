//! Tab in each shell: commands, flags, and keys as the server has them, a directory at a time.

use std::process::Command;

use etcfs_tests::{
    binary, command, machine,
    server::{Kind, Server},
};

fn stage() -> Server {
    let server = Server::start(Kind::Etcfs);
    let api = server.api();
    for key in ["/app/one", "/app/two/deep", "/app/two/deeper", "/apple", "/odd name"] {
        api.set(key, "");
    }
    server
}

/// What a shell's script says with `etcfs` on its path.
#[track_caller]
fn says(shell: &str, server: &Server, script: &str) -> String {
    let bin = binary::etcfs().parent().expect("it lies in a directory").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(machine::program(shell));
    let flags: &[&str] = if shell == "bash" { &["--norc", "-c"] } else { &["-c"] };
    let home = server.scratch();
    command
        .args(flags)
        .arg(script)
        .env("PATH", path)
        .env("HOME", home)
        .env("ETCFS_ENDPOINTS", server.endpoint());
    command::run(&mut command, b"").ok()
}

#[test]
fn in_bash() {
    let server = stage();
    let tab = |words: &str| {
        let script = format!(
            "source <(etcfs completion bash); compopt() {{ :; }}; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _etcfs; echo \"${{COMPREPLY[*]}}\""
        );
        says("bash", &server, &script)
    };
    assert_eq!(tab("etcfs snap"), "snapshot\n");
    assert_eq!(tab("etcfs get --print-v"), "--print-value-only\n");
    assert_eq!(tab("etcfs get /ap"), "/app/ /apple\n");
    assert_eq!(tab("etcfs get /app/"), "/app/one /app/two/\n");
    assert_eq!(tab("etcfs edit /app/two/"), "/app/two/deep /app/two/deeper\n");
    assert_eq!(tab("etcfs get /odd"), "\n", "what can't be typed so");
    assert_eq!(tab("etcfs snap re"), "restore\n");
    assert_eq!(tab("etcfs wat /app/"), "/app/one /app/two/\n");
    // As bash cuts it.
    let (host, port) = (server.endpoint(), server.endpoint());
    let (host, port) = (host.split(':').next().expect("a host"), port.split(':').nth(1).expect("a port"));
    assert_eq!(tab(&format!("etcfs --endpoints = {host} : {port} ls /app/t")), "/app/two/\n");
    // Nobody there: no keys, no words.
    assert_eq!(tab("etcfs --endpoints = 127.0.0.1 : 1 ls /"), "\n");
    let registered = says("bash", &server, "source <(etcfs completion bash); complete -p etcfs");
    assert_eq!(registered, "complete -o default -o nosort -F _etcfs etcfs\n");
}

/// A real line editor, on a terminal of its own: what is typed, and what Tab makes of it.
#[test]
fn in_zsh() {
    let server = stage();
    let script = r#"
        zmodload zsh/zpty
        zpty shell zsh -f
        zpty -w shell "PS1=; autoload -Uz compinit; compinit -D -u; SETUP; bindkey '^I' complete-word"
        zpty -w shell 'etcfs() { print -r -- GOT: "$@" }; print REA""DY'
        zpty -r shell out '*READY*'
        try() { zpty -w -n shell "$1"$'\t\n'; zpty -r shell out "*GOT: $2*"; print -r -- "$2" }
        try 'etcfs snap' snapshot
        try 'etcfs get /app/o' 'get /app/one'
        try 'etcfs ls /app/t' 'ls /app/two/'
        try 'etcfs snap re' 'snap restore'
        try 'etcfs ed /app/o' 'ed /app/one'
        zpty -d shell
    "#;
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/dist/completions");
    for setup in ["source <(etcfs completion zsh)", &format!("fpath=({packaged} \\$fpath); compinit -D -u")] {
        let said = says("zsh", &server, &script.replace("SETUP", setup));
        assert_eq!(said, "snapshot\nget /app/one\nls /app/two/\nsnap restore\ned /app/one\n");
    }
}

#[test]
fn in_fish() {
    let server = stage();
    let tab = |line: &str| {
        says("fish", &server, &format!("etcfs completion fish | source; complete --do-complete '{line}'"))
    };
    assert_eq!(tab("etcfs snap"), "snapshot\n");
    assert_eq!(tab("etcfs get --print-v"), "--print-value-only\n");
    assert_eq!(tab("etcfs get /ap"), "/app/\n/apple\n");
    assert_eq!(tab("etcfs get /app/"), "/app/one\n/app/two/\n");
    assert_eq!(tab("etcfs snap re"), "restore\n");
    assert_eq!(tab("etcfs hist /app/o"), "/app/one\n");
}

#[test]
fn other_shells_get_commands_and_flags() {
    let server = stage();
    for shell in ["elvish", "powershell"] {
        let script = says("bash", &server, &format!("etcfs completion {shell}"));
        assert!(script.contains("move-leader") && script.contains("--endpoints"), "{shell}");
    }
}
