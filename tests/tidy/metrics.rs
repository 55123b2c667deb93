//! Each metric that the server shows stands in its document.

use std::fs;

use etcfs_tests::server::{Server, http_get};

use crate::{none, root};

#[test]
fn every_metric_stands_in_its_document() {
    let document = fs::read_to_string(root().join("server/docs/metrics.md")).expect("server/docs/metrics.md");
    let server = Server::etcfs();
    // Some appear with the first call of their kind.
    server.api().set("/a", "v");
    let text = http_get(&server.endpoint(), "/metrics").expect("the server answers");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.len() > 10, "metrics are found:\n{text}");
    let missing = names.iter().filter(|name| !document.contains(&format!("`{name}`")));
    none(missing.map(|name| format!("server/docs/metrics.md lacks `{name}`")).collect());
}
