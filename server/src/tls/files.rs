//! What the settings name, as rustls takes it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::TlsError;
use crate::config::{Certificate, Tls, TlsVersion};

/// A certificate with those that vouch for it, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

const DAY: Duration = Duration::from_secs(24 * 3600);

fn failed(path: &Path, reason: &dyn ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// When each file that the settings name was written.
pub(super) fn written(settings: &Tls) -> Vec<Option<SystemTime>> {
    let mut files: Vec<&PathBuf> = settings.trusted_ca.iter().chain(&settings.revoked).collect();
    if let Certificate::Files { certificate, key } = &settings.certificate {
        files.extend([certificate, key]);
    }
    files.into_iter().map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok()).collect()
}

pub(super) fn versions(settings: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)];
    let spoken = settings.min_version..=settings.max_version;
    all.into_iter().filter(|(version, _)| spoken.contains(version)).map(|(_, version)| version).collect()
}

/// What is spoken of all that rustls has: it encrypts nothing without authentication.
pub(super) fn provider(settings: &Tls) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let is_chosen = |suite: &SupportedCipherSuite| {
        let name = suite.suite().as_str();
        suite.tls13().is_some() || settings.ciphers.iter().any(|chosen| Some(chosen.as_str()) == name)
    };
    if !settings.ciphers.is_empty() {
        provider.cipher_suites.retain(is_chosen);
    }
    Arc::new(provider)
}

/// What the port shows.
pub(super) fn identity(settings: &Tls) -> Result<Identity, TlsError> {
    match &settings.certificate {
        Certificate::Files { certificate, key } => {
            let parsed = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
            Ok((certificates(certificate)?, parsed))
        }
        Certificate::SelfSigned { years } => Ok(self_signed(*years)?),
    }
}

pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| failed(path, &error))?;
    }
    Ok(roots)
}

/// Lists of revoked certificates; PEM.
pub(super) fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|error| failed(path, &error))?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| failed(path, &error))?;
    if found.is_empty() {
        Err(failed(path, &"there is no list of revoked certificates in it"))
    } else {
        Ok(found)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|error| failed(path, &error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| failed(path, &error))?;
    if found.is_empty() { Err(failed(path, &"there is no certificate in it")) } else { Ok(found) }
}

fn self_signed(years: u32) -> Result<Identity, rcgen::Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names)?;
    // Clocks may differ a little.
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + DAY * 365 * years).into();
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    Ok((vec![certificate.der().clone()], key))
}
