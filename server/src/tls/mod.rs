//! TLS of the server's ports and towards other members.
//!
//! Owns the files of certificates: an [`Acceptor`] and a [`Connector`] read theirs
//! again when they change, and keep what was good if what came can't be used.
//! rustls speaks 1.2 and 1.3 with authenticated ciphers alone. Who a certificate
//! names is told to the caller; what that name may do is none of this module's
//! business.

mod accept;
mod connect;
mod files;
mod names;
mod reload;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use accept::Acceptor;
pub use connect::Connector;

/// Why a port can't speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    Setting(#[from] rustls::Error),
    #[error("no certificate can be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error("whom to trust: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}
