//! How this member shakes hands with others: it shows its own certificate, and
//! believes those of the same CA that are for the host it called.
//!
//! A certificate that was made at the start is nobody's to check: with such ones
//! members keep others from listening, and don't know each other.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{TlsError, files, reload::Reloaded};
use crate::config::{Certificate, Tls};

/// Towards all members; clones share it.
#[derive(Clone, Debug)]
pub struct Connector(Reloaded<ClientConfig>);

impl Connector {
    pub fn new(settings: &Tls) -> Result<Self, TlsError> {
        Ok(Self(Reloaded::new(settings, load)?))
    }

    /// Shakes hands with whom `host` must be the name or the address of.
    pub async fn connect<S>(&self, host: String, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        TlsConnector::from(self.0.newest()).connect(name, stream).await
    }
}

fn load(settings: &Tls) -> Result<ClientConfig, TlsError> {
    let provider = files::provider(settings);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&files::versions(settings))?;
    let builder = match (&settings.certificate, &settings.trusted_ca) {
        (Certificate::SelfSigned { .. }, _) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        }
        (_, Some(path)) => builder.with_root_certificates(files::roots(path)?),
        // As etcd has it: whom the system trusts.
        (_, None) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots)
        }
    };
    let (chain, key) = files::identity(settings)?;
    let mut config = builder.with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Takes any certificate, but not a handshake that is not signed by it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
