//! What is beside etcd's own services: health, reflection, and what is not there yet.

use std::collections::BTreeSet;

use etcfs_tests::api::get;
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::subject::Subject;

on_both! {
    the_health_service_says_serving,
    an_unknown_method_is_unimplemented,
    a_call_that_wants_a_leader_is_served,
    metadata_of_clients_is_accepted,
}
on_ours! {
    the_services_describe_themselves,
}

fn the_health_service_says_serving(s: &Subject) {
    let mut client = HealthClient::new(s.channel());
    let answer = s.wait(client.check(HealthCheckRequest { service: String::new() })).unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let watched = s
        .wait(async {
            client.watch(HealthCheckRequest { service: String::new() }).await?.into_inner().message().await
        })
        .unwrap();
    assert_eq!(watched.unwrap().status(), ServingStatus::Serving);
    let unknown = s.wait(client.check(HealthCheckRequest { service: "no.such".into() })).unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

fn an_unknown_method_is_unimplemented(s: &Subject) {
    for path in ["/etcdserverpb.KV/NoSuch", "/no.such.Service/Method"] {
        let status = s
            .wait(async {
                let mut grpc = tonic::client::Grpc::new(s.channel());
                grpc.ready().await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
                let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
                let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
                grpc.unary(Request::new(HealthCheckRequest::default()), path, codec).await
            })
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
}

fn a_call_that_wants_a_leader_is_served(s: &Subject) {
    let mut request = Request::new(get("a"));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    s.wait(s.kv().range(request)).unwrap();
}

fn metadata_of_clients_is_accepted(s: &Subject) {
    let mut request = Request::new(get("a"));
    request.metadata_mut().insert("client-api-version", "3.6.0".parse().unwrap());
    request.metadata_mut().insert("user-agent", "a client".parse().unwrap());
    s.wait(s.kv().range(request)).unwrap();
}

fn the_services_describe_themselves(s: &Subject) {
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let answers = s
        .wait(async {
            let requests = tokio_stream::iter([
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("etcdserverpb.RangeRequest".into())),
            ]);
            let mut client = ServerReflectionClient::new(s.channel());
            let mut stream = client.server_reflection_info(requests).await?.into_inner();
            let mut answers = Vec::new();
            while let Some(answer) = stream.message().await? {
                answers.push(answer.message_response.unwrap());
            }
            Ok(answers)
        })
        .unwrap();
    let MessageResponse::ListServicesResponse(services) = &answers[0] else { panic!("{answers:?}") };
    let names: BTreeSet<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["KV", "Watch", "Lease", "Cluster", "Maintenance"] {
        assert!(names.contains(format!("etcdserverpb.{name}").as_str()), "{name} is not in {names:?}");
    }
    assert!(matches!(answers[1], MessageResponse::FileDescriptorResponse(_)), "{answers:?}");
}
