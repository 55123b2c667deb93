//! Who may do what: users, roles, their rights, and the tokens of who logged in.
//!
//! Apply alone changes it, through [`AuthStore`], so that all members agree;
//! everybody else asks [`Auth`]. A right is asked for by [`Demand`], the same
//! rules before a request is proposed and when it is applied. No clock is read
//! here: who asks about a token says what time it is.

mod demand;
mod error;
mod jwt;
mod password;
mod rights;
mod store;
mod tokens;

pub use demand::Demand;
pub use error::AuthError;
pub use jwt::{Jwt, JwtKeys};
pub use password::{PASSWORD_BYTES_MAX, hash_password, is_password};
pub use rights::{Access, Rights};
pub use store::{Auth, AuthStore, Caller};
pub use tokens::digest;

/// The user and the role to whom everything is allowed.
pub const ROOT: &str = "root";
