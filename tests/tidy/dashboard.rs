//! The dashboard draws, and the alerts ask for, only what the server shows.

use std::{collections::BTreeSet, fs};

use etcfs_tests::{
    api::watch_key,
    server::{Kind, Options, Server, http_get},
};
use serde_json::Value;

use crate::{none, root};

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_scraped() {
    let read = |name: &str| fs::read_to_string(root().join("server/dist").join(name)).expect(name);
    let (text, alerts) = (read("grafana.json"), read("alerts.yaml"));
    let dashboard: Value = serde_json::from_str(&text).expect("a dashboard is JSON");
    let mut drawn = BTreeSet::new();
    let panels = dashboard["panels"].as_array().expect("a dashboard has panels");
    for expression in panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        drawn.extend(metrics(expression["expr"].as_str().expect("a target has an expression")));
    }
    assert!(drawn.len() > 25, "metrics are drawn: {drawn:?}");
    // A summary's braces have a space within, and so no name in front of one.
    drawn.extend(metrics(&alerts).into_iter().filter(|name| !name.is_empty()));
    let args = vec!["--metrics=extensive".to_owned()];
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    // Some appear with the first call of their kind.
    let _watch = server.api().watch(watch_key("/a", 0));
    server.api().set("/a", "v");
    let scraped = http_get(&server.endpoint(), "/metrics").expect("the server answers");
    let names: BTreeSet<&str> = scraped.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    // Prometheus' own.
    let missing = drawn.iter().filter(|name| *name != "up" && !names.contains(name.as_str()));
    none(
        missing
            .map(|name| format!("server/dist/grafana.json or alerts.yaml has {name}, which /metrics lacks"))
            .collect(),
    );
}

/// The names of metrics in a PromQL expression: what selects by labels.
fn metrics(expression: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let heads = expression.match_indices('{').map(|(at, _)| &expression[..at]);
    heads
        .map(|head| {
            let start = head.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
            head[start..].to_owned()
        })
        .collect()
}

#[test]
fn metrics_are_told_from_functions_and_labels() {
    let expression = "sum by (le) (rate(a_bucket{job=\"$job\"}[5m])) / b_total{x=~\".*\"}";
    assert_eq!(metrics(expression), ["a_bucket", "b_total"]);
}
