//! Sockets: one port for gRPC and for plain HTTP, and one for other members.
//!
//! `listener` accepts within limits and drains at the end; `wire` closes so that the
//! last answer arrives, `authority` mends what old clients call their host, and `pings`
//! says who pings too often; `door` sends each request to `rpc` (gRPC, told by its content
//! type) or `web`, which keeps foreign pages out and has `gateway` (JSON) and `http`
//! (/health, /metrics and so on).
//! Only here are hyper and tonic's transport known.

mod authority;
mod body;
mod deadline;
mod door;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod gather;
mod http;
mod input;
mod listener;
mod long;
mod methods;
mod pings;
mod place;
mod rpc;
mod unary;
mod web;
mod wire;

pub use door::Door;
pub use gateway::Gateway;
pub use http::Http;
pub use listener::{Listener, serve};
pub use methods::METHODS;
pub use rpc::Rpc;
pub use web::{Rules, Web};
