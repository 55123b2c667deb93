//! Sockets: one port for gRPC and for plain HTTP, and one for other members.
//!
//! `listener` accepts within limits and drains at the end; `door` sends each
//! request to `rpc` (gRPC, told by its content type) or `http` (/health,
//! /metrics and so on). Only here are hyper and tonic's transport known.

mod body;
mod door;
mod http;
mod listener;
mod methods;
mod rpc;
mod unary;

pub use door::Door;
pub use http::Http;
pub use listener::{Listener, serve};
pub use methods::METHODS;
pub use rpc::Rpc;
