//! TLS towards the servers: whom to trust, and who we are.
//!
//! The files are read when a client is made, where an error is the caller's, and
//! again for each later connection: a client outlives its certificates.

use std::{fmt, fs, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::ClientError;

/// How to speak TLS; by default with servers whose certificate the system trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates (PEM) of those whose servers are trusted; the system's if none.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Trusts whatever server answers.
    pub skip_verify: bool,
}

/// What the connections of one client are made with, as the files have it by then.
pub(crate) struct Renewed {
    tls: Tls,
    /// As the files were last read: a certificate and its key are two, and not replaced at once.
    last: Mutex<Connector>,
}

impl Renewed {
    pub(crate) fn new(tls: Tls) -> Result<Self, ClientError> {
        let first = Connector::new(&tls, HTTP2)?;
        Ok(Self { tls, last: Mutex::new(first) })
    }

    pub(crate) fn last(&self) -> Connector {
        self.last.lock().clone()
    }

    /// Reads the files again; what can't be used changes nothing.
    pub(crate) fn renew(&self) -> Connector {
        match Connector::new(&self.tls, HTTP2) {
            Ok(new) => *self.last.lock() = new,
            Err(error) => tracing::warn!(%error, "connecting with the certificates that were read before"),
        }
        self.last()
    }
}

/// gRPC's protocol, for the handshake.
const HTTP2: &[u8] = b"h2";

/// What connections are made with.
#[derive(Clone)]
pub(crate) struct Connector(TlsConnector);

impl Connector {
    pub(crate) fn new(tls: &Tls, protocol: &[u8]) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Tls(error.to_string()))?;
        let builder = if tls.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(roots(tls)?)
        };
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let key_der = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| ClientError::Tls(format!("{}: {error}", key.display())))?;
                builder.with_client_auth_cert(chain, key_der).map_err(|error| {
                    ClientError::Tls(format!("{} and {}: {error}", cert.display(), key.display()))
                })?
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn connect(&self, host: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(io::Error::other)?;
        self.0.connect(name, tcp).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

fn roots(tls: &Tls) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &tls.ca {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| ClientError::Tls(format!("{}: {error}", ca.display())))?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = "the system trusts nobody; name the file of a CA, or skip verification";
        return Err(ClientError::Tls(reason.into()));
    }
    Ok(roots)
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let failed = |error: &dyn fmt::Display| ClientError::Tls(format!("{}: {error}", path.display()));
    let pem = fs::read(path).map_err(|error| failed(&error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| failed(&error))?;
    if found.is_empty() { Err(failed(&"there is no certificate in it")) } else { Ok(found) }
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
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
