//! TLS of one port: which certificate it shows, and whom it lets in.

use std::{fmt, path::PathBuf};

use clap::Args;

use super::{ConfigError, Founder, ListenUrl, check::refuse};

/// The oldest version that a port speaks; older ones than 1.2 are spoken by none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum TlsVersion {
    #[value(name = "TLS1.2")]
    V1_2,
    #[value(name = "TLS1.3")]
    V1_3,
}

/// What a port shows and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificate: Certificate,
    /// Whoever connects must have a certificate of one of these.
    pub trusted_ca: Option<PathBuf>,
    /// Certificates that are not taken any more.
    pub revoked: Option<PathBuf>,
    /// The common name of a client's certificate is a user.
    pub names_users: bool,
    /// Whom a certificate must be for.
    pub allowed: Option<Allowed>,
    /// A certificate that is for hosts is taken from those alone.
    pub bound_to_host: bool,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// Names of ciphers of TLS 1.2; all that there are for none. Those of 1.3 are not chosen, as with etcd.
    pub ciphers: Vec<String>,
}

/// The ciphers of TLS 1.2 that can be chosen: those that authenticate what they hide.
const CIPHERS: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// Those of TLS 1.3, which may be named and are always spoken.
const CIPHERS_1_3: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// PEM, read again when they change.
    Files { certificate: PathBuf, key: PathBuf },
    /// Made at the start, for nobody's trust.
    SelfSigned { years: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    CommonName(String),
    HostName(String),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(name) => write!(f, "the common name {name:?}"),
            Self::HostName(name) => write!(f, "the host {name:?}"),
        }
    }
}

/// The flags of the client port, and those of both.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS for clients")]
pub(super) struct TlsArgs {
    /// Certificate (PEM) that clients are shown; https URLs need one.
    #[arg(long)]
    cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Take clients with a certificate alone; its common name is a user.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, action = clap::ArgAction::Set)]
    client_cert_auth: bool,
    /// CAs (PEM) whose certificates clients must have.
    #[arg(long)]
    trusted_ca_file: Option<PathBuf>,
    /// List (PEM) of clients' certificates that are not taken any more.
    #[arg(long)]
    client_crl_file: Option<PathBuf>,
    /// Host that clients' certificates must be for.
    #[arg(long)]
    client_cert_allowed_hostname: Option<String>,
    /// Make a certificate at the start, which nobody can check.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, action = clap::ArgAction::Set)]
    auto_tls: bool,
    /// Years that a certificate made at the start is valid.
    #[arg(long, default_value_t = 1)]
    self_signed_cert_validity: u32,
    /// Oldest version of TLS that is spoken, with members too.
    #[arg(long, value_enum, default_value = "TLS1.2")]
    tls_min_version: TlsVersion,
    /// Newest version of TLS that is spoken, with members too.
    #[arg(long, value_enum, default_value = "TLS1.3")]
    tls_max_version: TlsVersion,
    /// Ciphers of TLS 1.2, with members too, comma separated [default: all with authentication].
    #[arg(long, default_value = "", hide_default_value = true)]
    cipher_suites: String,
}

impl TlsArgs {
    fn ciphers(&self) -> Result<Vec<String>, ConfigError> {
        let refused = |remedy: &str| refuse("--cipher-suites", &self.cipher_suites, remedy);
        let mut ciphers = Vec::new();
        for name in self.cipher_suites.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // Go has two of them by a shorter name, too.
            let found =
                CIPHERS.iter().find(|known| **known == name || known.strip_suffix("_SHA256") == Some(name));
            match found {
                Some(known) => ciphers.push((*known).to_owned()),
                None if CIPHERS_1_3.contains(&name) => {}
                None => {
                    let known = CIPHERS.join(", ");
                    return Err(refused(&format!("{name} is none that is spoken here; there are {known}")));
                }
            }
        }
        if !ciphers.is_empty() && self.tls_min_version == TlsVersion::V1_3 {
            return Err(refused("is for TLS 1.2, which --tls-min-version=TLS1.3 leaves out; remove one"));
        }
        if ciphers.is_empty() && !self.cipher_suites.is_empty() && self.tls_max_version == TlsVersion::V1_2 {
            return Err(refused("has none of TLS 1.2, the only one that --tls-max-version lets be spoken"));
        }
        Ok(ciphers)
    }
}

/// The flags of the peer port.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS between members")]
pub(super) struct PeerTlsArgs {
    /// Certificate (PEM) that this member shows to others, whoever calls.
    #[arg(long)]
    peer_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long)]
    peer_key_file: Option<PathBuf>,
    /// Take members with a certificate alone.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, action = clap::ArgAction::Set)]
    peer_client_cert_auth: bool,
    /// CAs (PEM) whose certificates other members must have.
    #[arg(long)]
    peer_trusted_ca_file: Option<PathBuf>,
    /// List (PEM) of members' certificates that are not taken any more.
    #[arg(long)]
    peer_crl_file: Option<PathBuf>,
    /// Common name that members' certificates must have.
    #[arg(long)]
    peer_cert_allowed_cn: Option<String>,
    /// Host that members' certificates must be for.
    #[arg(long)]
    peer_cert_allowed_hostname: Option<String>,
    /// Take a certificate that is for hosts from any other host as well.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, action = clap::ArgAction::Set)]
    peer_skip_client_san_verification: bool,
    /// Make a certificate at the start: what members say is hidden, who says it is not checked.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, action = clap::ArgAction::Set)]
    peer_auto_tls: bool,
}

/// What both ports have, as it was given.
struct Port<'a> {
    /// `` or `peer-`.
    prefix: &'static str,
    certificate: &'a Option<PathBuf>,
    key: &'a Option<PathBuf>,
    client_cert_auth: bool,
    trusted_ca: &'a Option<PathBuf>,
    revoked: &'a Option<PathBuf>,
    allowed: Option<Allowed>,
    bound_to_host: bool,
    auto: bool,
    url_flag: &'static str,
    /// Whether any of the port's URLs asks for TLS.
    is_asked_for: bool,
}

pub(super) fn clients(
    args: &TlsArgs,
    listen: &[ListenUrl],
    metrics: &[ListenUrl],
    warnings: &mut Vec<String>,
) -> Result<Option<Tls>, ConfigError> {
    let port = Port {
        prefix: "",
        certificate: &args.cert_file,
        key: &args.key_file,
        client_cert_auth: args.client_cert_auth,
        trusted_ca: &args.trusted_ca_file,
        revoked: &args.client_crl_file,
        allowed: args.client_cert_allowed_hostname.clone().map(Allowed::HostName),
        bound_to_host: false,
        auto: args.auto_tls,
        url_flag: "--listen-client-urls",
        is_asked_for: listen.iter().chain(metrics).any(|url| url.secure),
    };
    port.tls(args, warnings)
}

pub(super) fn peers(
    args: &PeerTlsArgs,
    common: &TlsArgs,
    listen: &[ListenUrl],
    founders: &[Founder],
    warnings: &mut Vec<String>,
) -> Result<Option<Tls>, ConfigError> {
    let allowed = match (&args.peer_cert_allowed_cn, &args.peer_cert_allowed_hostname) {
        (Some(_), Some(name)) => {
            let remedy = "and --peer-cert-allowed-cn exclude each other";
            return Err(refuse("--peer-cert-allowed-hostname", name, remedy));
        }
        (Some(name), None) => Some(Allowed::CommonName(name.clone())),
        (None, name) => name.clone().map(Allowed::HostName),
    };
    let others = founders.iter().flat_map(|founder| &founder.peer_urls);
    let port = Port {
        prefix: "peer-",
        certificate: &args.peer_cert_file,
        key: &args.peer_key_file,
        client_cert_auth: args.peer_client_cert_auth,
        trusted_ca: &args.peer_trusted_ca_file,
        revoked: &args.peer_crl_file,
        allowed,
        bound_to_host: !args.peer_skip_client_san_verification,
        auto: args.peer_auto_tls,
        url_flag: "--listen-peer-urls",
        is_asked_for: listen.iter().any(|url| url.secure)
            || others.clone().any(|url| url.starts_with("https:")),
    };
    port.tls(common, warnings)
}

impl Port<'_> {
    fn flag(&self, name: &str) -> String {
        format!("--{}{name}", self.prefix)
    }

    fn tls(self, common: &TlsArgs, warnings: &mut Vec<String>) -> Result<Option<Tls>, ConfigError> {
        let (min_version, max_version) = (common.tls_min_version, common.tls_max_version);
        if min_version > max_version {
            return Err(refuse("--tls-min-version", "TLS1.3", "is above --tls-max-version"));
        }
        let ciphers = common.ciphers()?;
        if self.client_cert_auth && self.trusted_ca.is_none() {
            let remedy =
                format!("needs {}, the CAs whose certificates are taken", self.flag("trusted-ca-file"));
            return Err(refuse(&self.flag("client-cert-auth"), "true", &remedy));
        }
        let Some(certificate) = self.certificate(common.self_signed_cert_validity)? else { return Ok(None) };
        if !self.is_asked_for {
            warnings.push(format!("{} has no https URL: the certificate for it is not used", self.url_flag));
            return Ok(None);
        }
        Ok(Some(Tls {
            certificate,
            trusted_ca: self.trusted_ca.clone(),
            revoked: self.revoked.clone(),
            names_users: self.client_cert_auth && self.prefix.is_empty(),
            allowed: self.allowed,
            bound_to_host: self.bound_to_host,
            min_version,
            max_version,
            ciphers,
        }))
    }

    fn certificate(&self, years: u32) -> Result<Option<Certificate>, ConfigError> {
        let half = |given: &str, path: &PathBuf, missing: &str| {
            let remedy = format!("needs {} as well", self.flag(missing));
            refuse(&self.flag(given), path.display(), &remedy)
        };
        match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                Ok(Some(Certificate::Files { certificate: certificate.clone(), key: key.clone() }))
            }
            (Some(certificate), None) => Err(half("cert-file", certificate, "key-file")),
            (None, Some(key)) => Err(half("key-file", key, "cert-file")),
            (None, None) if self.auto => Ok(Some(Certificate::SelfSigned { years })),
            (None, None) if self.is_asked_for => {
                let [cert, key, auto] = ["cert-file", "key-file", "auto-tls"].map(|name| self.flag(name));
                Err(refuse(self.url_flag, "https://..", &format!("https needs {cert} and {key}, or {auto}")))
            }
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{
        super::{Config, Invocation, parse},
        *,
    };

    const CLIENTS: [&str; 4] =
        ["--listen-client-urls", "https://localhost:1", "--advertise-client-urls", "https://localhost:1"];
    const PEERS: [&str; 4] =
        ["--listen-peer-urls", "https://localhost:2", "--initial-advertise-peer-urls", "https://localhost:2"];

    fn of(port: &[&str], args: &[&str]) -> Result<Config, String> {
        let args = [&["etcfsd"], port, args].concat();
        match parse(args.into_iter().map(OsString::from), []) {
            Ok(Invocation::Serve(config)) => Ok(*config),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_half_set_up_is_refused_by_name() {
        for (port, prefix) in [(CLIENTS, ""), (PEERS, "peer-")] {
            for (args, named) in [
                (&[format!("--{prefix}cert-file=x")][..], format!("--{prefix}key-file")),
                (&[format!("--{prefix}key-file=x")], format!("--{prefix}cert-file")),
                (&[], format!("--{prefix}auto-tls")),
                (&[format!("--{prefix}client-cert-auth")], format!("--{prefix}trusted-ca-file")),
                (&["--tls-min-version=TLS1.3".into(), "--tls-max-version=TLS1.2".into()], "--tls-min".into()),
            ] {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                assert!(of(&port, &args).unwrap_err().contains(&named), "{args:?}");
            }
        }
        let both = ["--peer-auto-tls", "--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b"];
        assert!(of(&PEERS, &both).unwrap_err().contains("--peer-cert-allowed-cn"));
    }

    #[test]
    fn a_certificate_wins_over_a_made_one_and_plain_ports_have_none() {
        let both = of(&CLIENTS, &["--auto-tls", "--cert-file=x", "--key-file=y"]).unwrap();
        assert!(matches!(both.client_tls.unwrap().certificate, Certificate::Files { .. }));
        let made = of(&PEERS, &["--peer-auto-tls"]).unwrap();
        assert_eq!(made.peer_tls.unwrap().certificate, Certificate::SelfSigned { years: 1 });
        assert_eq!(made.client_tls, None);
        let plain = of(&[], &["--auto-tls"]).unwrap();
        assert_eq!(plain.client_tls, None);
        assert!(plain.warnings[0].contains("no https URL"));
    }

    #[test]
    fn ciphers_are_named_as_etcd_names_them() {
        let of_ciphers = |names: &str, more: &[&str]| {
            let named = format!("--cipher-suites={names}");
            of(&CLIENTS, &[&["--auto-tls", &named], more].concat())
                .map(|config| config.client_tls.unwrap().ciphers)
        };
        assert_eq!(of_ciphers("", &[]).unwrap(), [""; 0]);
        let named = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_AES_128_GCM_SHA256";
        assert_eq!(of_ciphers(named, &[]).unwrap(), ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
        for weak in ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "nonsense"] {
            let refused = of_ciphers(weak, &[]).unwrap_err();
            assert!(refused.contains(weak) && refused.contains(CIPHERS[0]), "{refused}");
        }
        assert!(of_ciphers(CIPHERS[0], &["--tls-min-version=TLS1.3"]).unwrap_err().contains("TLS 1.2"));
        assert!(of_ciphers(CIPHERS_1_3[0], &["--tls-max-version=TLS1.2"]).unwrap_err().contains("TLS 1.2"));
    }

    #[test]
    fn a_common_name_is_a_user_on_the_client_port_alone() {
        let files = ["--cert-file=x", "--key-file=y", "--client-cert-auth", "--trusted-ca-file=z"];
        assert!(of(&CLIENTS, &files).unwrap().client_tls.unwrap().names_users);
        let files = [
            "--peer-cert-file=x",
            "--peer-key-file=y",
            "--peer-client-cert-auth",
            "--peer-trusted-ca-file=z",
        ];
        let peers = of(&PEERS, &files).unwrap().peer_tls.unwrap();
        assert!(!peers.names_users && peers.bound_to_host);
    }
}
