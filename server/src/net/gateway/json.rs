//! Paths and messages of the gateway, read from the API's own descriptors.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    SerializeOptions, Value,
};
use tonic::Status;

use super::super::methods::Method;

/// All paths.
#[derive(Debug)]
pub(super) struct Json {
    routes: HashMap<String, Route>,
}

/// One RPC as the gateway sees it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Of the gRPC method.
    pub(super) path: &'static str,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    pub(super) reads_stream: bool,
    pub(super) answers_stream: bool,
}

impl Json {
    pub(super) fn new() -> Self {
        let pool = DescriptorPool::decode(etcfs_proto::DESCRIPTORS)
            .expect("the descriptors are compiled in, and a test reads them");
        let mut routes = HashMap::new();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let grpc = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let Some(path) = Method::of(&grpc).map(Method::path) else { continue };
            for post in posts(&pool, &method) {
                let route = Route {
                    path,
                    input: method.input(),
                    output: method.output(),
                    reads_stream: method.is_client_streaming(),
                    answers_stream: method.is_server_streaming(),
                };
                routes.insert(post, route);
            }
        }
        Self { routes }
    }

    /// Each route, in the order of their paths.
    #[cfg(any(test, fuzzing))]
    pub(super) fn all(&self) -> Vec<&Route> {
        let mut paths: Vec<_> = self.routes.keys().collect();
        paths.sort_unstable();
        paths.into_iter().map(|path| &self.routes[path]).collect()
    }

    pub(super) fn route(&self, path: &str) -> Option<&Route> {
        match path.strip_prefix("/v3beta/") {
            // The API's name before 3.4, which etcd still takes.
            Some(rest) => self.routes.get(&format!("/v3/{rest}")),
            None => self.routes.get(path),
        }
    }
}

/// The paths of a method's http rule and of its further bindings.
fn posts(pool: &DescriptorPool, method: &MethodDescriptor) -> Vec<String> {
    let Some(extension) = pool.get_extension_by_name("google.api.http") else { return Vec::new() };
    let options = method.options();
    let mut rules = vec![options.get_extension(&extension).into_owned()];
    let mut found = Vec::new();
    while let Some(rule) = rules.pop() {
        let Value::Message(rule) = rule else { continue };
        if let Some(Value::String(post)) = rule.get_field_by_name("post").as_deref()
            && !post.is_empty()
        {
            found.push(post.clone());
        }
        if let Some(Value::List(further)) = rule.get_field_by_name("additional_bindings").as_deref() {
            rules.extend(further.iter().cloned());
        }
    }
    found
}

/// A message from JSON text, in which a field has its name in the .proto or in lowerCamelCase.
/// No text is an empty message; an unknown field is passed over, and so is what follows.
pub(super) fn read(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(DynamicMessage::new(descriptor.clone()));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &options)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// JSON text of an encoded message.
pub(super) fn write(descriptor: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
    let failed = |error: &dyn std::fmt::Display| Status::internal(format!("the answer is no JSON: {error}"));
    let mut dynamic = DynamicMessage::new(descriptor.clone());
    dynamic.merge(message).map_err(|error| failed(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(true);
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    dynamic.serialize_with_options(&mut writer, &options).map_err(|error| failed(&error))?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::{super::super::METHODS, *};

    fn route(path: &str) -> Route {
        Json::new().route(path).unwrap_or_else(|| panic!("{path}")).clone()
    }

    #[track_caller]
    fn there_and_back(path: &str, text: &str, expected: &str) {
        let input = route(path).input;
        let message = read(&input, text.as_bytes()).unwrap();
        assert_eq!(write(&input, message.encode_to_vec().into()).unwrap(), expected);
    }

    #[test]
    fn every_rpc_of_etcds_has_a_path() {
        let json = Json::new();
        for (service, method, _) in METHODS {
            let path = format!("/{service}/{method}");
            let has = json.routes.values().any(|route| route.path == path);
            let is_etcds = !["grpc.", "etcfs."].iter().any(|other| service.starts_with(other));
            assert_eq!(has, is_etcds, "{path}");
        }
        for path in ["/v3/kv/range", "/v3/watch", "/v3/kv/lease/revoke", "/v3/lock/lock", "/v3beta/kv/put"] {
            assert!(json.route(path).is_some(), "{path}");
        }
        assert!(json.route("/v3/kv/nothing").is_none() && json.route("").is_none());
        assert!(route("/v3/watch").reads_stream && !route("/v3/maintenance/snapshot").reads_stream);
    }

    #[test]
    fn json_is_etcds() {
        let put = r#"{"key":"Zm9v","value":"YmFy","lease":"7"}"#;
        there_and_back("/v3/kv/put", put, put);
        let mixed = r#"{"key":"Zm9v","lease":7,"prevKv":true,"x":[1]} and more"#;
        there_and_back("/v3/kv/put", mixed, r#"{"key":"Zm9v","lease":"7","prev_kv":true}"#);
        let order = r#"{"sort_order":"DESCEND","sortTarget":4,"limit":"0"}"#;
        there_and_back("/v3/kv/range", order, r#"{"sort_order":"DESCEND","sort_target":"VALUE"}"#);
        there_and_back("/v3/kv/range", r#"{"key":null,"sort_order":"NO SUCH"}"#, "{}");
        let txn = |put| {
            let compare = r#"{"target":"MOD","key":"Zm9v","mod_revision":"1","range_end":"AA=="}"#;
            format!(r#"{{"compare":[{compare}],"success":[{{"{put}":{{"key":"Zm9v"}}}}]}}"#)
        };
        there_and_back("/v3/kv/txn", &txn("requestPut"), &txn("request_put"));
        there_and_back("/v3/lease/grant", r#"{"TTL":"60","ID":0}"#, r#"{"TTL":"60"}"#);
        there_and_back("/v3/kv/range", " ", "{}");
    }

    #[test]
    fn what_is_no_json_or_does_not_fit_is_refused() {
        let input = route("/v3/kv/put").input;
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        for text in ["{", "[]", "7", r#"{"key":"!"}"#, r#"{"lease":"x"}"#, r#"{"lease":1.5}"#, &deep] {
            assert_eq!(
                read(&input, text.as_bytes()).unwrap_err().code(),
                Code::InvalidArgument,
                "{text:.20}"
            );
        }
    }
}
