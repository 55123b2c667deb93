//! The configuration file: YAML, each setting by the name of its flag.
//!
//! As etcd has it, settings of TLS may also stand in two sections, without the
//! prefix that their flags have. A list is its items with commas between them.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::ConfigError;

/// Sections, and what their settings' flags begin with.
const SECTIONS: [(&str, &str); 2] = [("client-transport-security", ""), ("peer-transport-security", "peer-")];

/// The settings that a file makes, by the names of their flags.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    settings(&text).map_err(failed)
}

fn settings(text: &str) -> Result<BTreeMap<String, String>, String> {
    // A file of comments alone is no mapping, and no mistake.
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_blank) {
        return Ok(BTreeMap::new());
    }
    let Node::Section(top) = serde_saphyr::from_str(text).map_err(|error| error.to_string())? else {
        return Err("must be settings, each as NAME: VALUE".to_owned());
    };
    let mut found = BTreeMap::new();
    for (name, node) in top {
        match (SECTIONS.iter().find(|(section, _)| *section == name), node) {
            (Some((_, prefix)), Node::Section(section)) => {
                for (inner, node) in section {
                    put(&mut found, format!("{prefix}{inner}"), node)?;
                }
            }
            (Some(_), Node::Empty) => {}
            (Some(_), _) => {
                return Err(format!("{name} is a section: its settings stand below it, indented"));
            }
            (None, node) => put(&mut found, name, node)?,
        }
    }
    Ok(found)
}

fn put(found: &mut BTreeMap<String, String>, name: String, node: Node) -> Result<(), String> {
    let value = match node {
        Node::Value(value) => value,
        Node::List(items) => items.join(","),
        // As if it were not there: the default stands.
        Node::Empty => return Ok(()),
        Node::Section(_) => return Err(format!("{name} takes a value, no section")),
    };
    match found.insert(name.clone(), value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is set twice; drop one of the two")),
    }
}

/// A piece of YAML as far as settings need it.
#[derive(Debug, PartialEq)]
enum Node {
    Empty,
    Value(String),
    List(Vec<String>),
    Section(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values or a section")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Empty)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        // Its text is lost: 1.10 would become 1.1.
        Err(E::custom(format!("no setting is a fraction like {value}; put a text into quotes")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Value(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            match item {
                Node::Value(value) => list.push(value),
                _ => return Err(A::Error::custom("a list of a setting holds values alone")),
            }
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut section = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            section.push(entry);
        }
        Ok(Node::Section(section))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(settings(text), Ok(expected));
    }

    #[track_caller]
    fn refused(text: &str, word: &str) {
        let reason = settings(text).unwrap_err();
        assert!(reason.contains(word), "{text:?}: {reason}");
    }

    #[test]
    fn each_kind_of_value_is_what_a_flag_would_be_given() {
        check(
            "name: a\nheartbeat-interval: 200\nquota-backend-bytes: -1\nenable-grpc-gateway: false\n\
             data-dir: '/x y' # where\nlog-outputs: [stderr]\nlisten-client-urls: http://a:1,http://b:2\n\
             initial-cluster:\n  - a=http://a:1\n  - b=http://b:1\ncors: \"*\"\nwal-dir:\n",
            &[
                ("name", "a"),
                ("heartbeat-interval", "200"),
                ("quota-backend-bytes", "-1"),
                ("enable-grpc-gateway", "false"),
                ("data-dir", "/x y"),
                ("log-outputs", "stderr"),
                ("listen-client-urls", "http://a:1,http://b:2"),
                ("initial-cluster", "a=http://a:1,b=http://b:1"),
                ("cors", "*"),
            ],
        );
        check("", &[]);
        check("# name: a\n\n  # b\n", &[]);
    }

    #[test]
    fn settings_of_tls_stand_in_sections_as_etcd_has_them() {
        check(
            "client-transport-security:\n  cert-file: /c\n  client-cert-auth: true\n\
             peer-transport-security:\n  cert-file: /p\n  trusted-ca-file: /t\n",
            &[
                ("cert-file", "/c"),
                ("client-cert-auth", "true"),
                ("peer-cert-file", "/p"),
                ("peer-trusted-ca-file", "/t"),
            ],
        );
        check("client-transport-security:\n", &[]);
    }

    #[test]
    fn what_is_no_setting_is_refused_with_the_reason() {
        refused("just text", "NAME: VALUE");
        refused("- a\n- b", "NAME: VALUE");
        refused("name: [a", "");
        refused("name: a\nname: b\n", "name");
        refused("name:\n  first: a\n", "no section");
        refused("client-transport-security: yes please\n", "is a section");
        refused("name: [[a]]\n", "values alone");
        refused("initial-cluster-token: 1.10\n", "quotes");
        refused("cert-file: /a\nclient-transport-security:\n  cert-file: /b\n", "set twice");
    }
}
