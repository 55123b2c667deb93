//! Whom a port lets in.

use std::{io, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{net::TcpStream, time};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{TlsError, files, names, reload::Reloaded};
use crate::config::Tls;

/// Whoever has not said who it is by then is hung up on.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// One port's TLS; clones share it. All listeners of a port have the same one,
/// so that no second door has older rules.
#[derive(Clone, Debug)]
pub struct Acceptor(Reloaded<ServerConfig>);

impl Acceptor {
    pub fn new(settings: &Tls) -> Result<Self, TlsError> {
        Ok(Self(Reloaded::new(settings, load)?))
    }

    /// Shakes hands; gives the user's name that the client's certificate is for, if such names count.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<String>)> {
        let shaken = time::timeout(HANDSHAKE_MAX, self.shake(stream)).await;
        let stream = shaken.map_err(|_| io::ErrorKind::TimedOut)??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let name = match certificate {
            Some(certificate) if self.0.settings().names_users => names::common_name(certificate),
            _ => None,
        };
        Ok((stream, name))
    }

    async fn shake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let from = stream.peer_addr()?.ip();
        let stream = TlsAcceptor::from(self.0.newest()).accept(stream).await?;
        let settings = self.0.settings();
        if let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            if let Some(allowed) = &settings.allowed {
                names::check_allowed(certificate, allowed)?;
            }
            if settings.bound_to_host {
                names::check_host(certificate, from).await?;
            }
        }
        Ok(stream)
    }
}

fn load(settings: &Tls) -> Result<ServerConfig, TlsError> {
    let provider = files::provider(settings);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&files::versions(settings))?;
    let builder = match &settings.trusted_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(files::roots(path)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if let Some(path) = &settings.revoked {
                // A list speaks of those that its issuer signed; others are as good as without it.
                verifier = verifier
                    .with_crls(files::revoked(path)?)
                    .only_check_end_entity_revocation()
                    .allow_unknown_revocation_status();
            }
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let (chain, key) = files::identity(settings)?;
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
