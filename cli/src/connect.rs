//! From the global flags to a client.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use etcfs_client::{ANSWER_BYTES_MAX, Client, Config, Credentials, Discovery, Tls};
use etcfs_proto::etcdserverpb::MemberListRequest;

use crate::{
    args::{Global, Security},
    error::CliError,
};

/// Finds the servers in DNS, if that is where they are to be looked for.
pub(crate) async fn discover(global: &mut Global) -> Result<(), CliError> {
    let Some(domain) = &global.discovery_srv else { return Ok(()) };
    let discovery = Discovery {
        domain: domain.clone(),
        service_name: global.discovery_srv_name.clone(),
        server: global.discovery_srv_server,
        only_secure: !global.insecure_discovery,
    };
    let found = discovery.endpoints().await;
    global.endpoints = found.map_err(|error| CliError::failed(error.to_string()))?;
    tracing::debug!(domain, endpoints = ?global.endpoints, "found servers in DNS");
    Ok(())
}

/// A client for all endpoints.
pub(crate) fn client(global: &Global) -> Result<Client, CliError> {
    client_of(global, global.endpoints.clone())
}

/// A client for some endpoints, with the same waits.
pub(crate) fn client_of(global: &Global, endpoints: Vec<String>) -> Result<Client, CliError> {
    foreign(global, &global.security, endpoints)
}

/// A client for endpoints of another cluster, which has its own certificates and users.
pub(crate) fn foreign(
    global: &Global,
    security: &Security,
    endpoints: Vec<String>,
) -> Result<Client, CliError> {
    let credentials = credentials(security)?;
    Ok(Client::connect(Config { credentials, ..config(global, security, endpoints)? })?)
}

/// The metrics of one endpoint, for which nobody has to log in.
pub(crate) async fn metrics(global: &Global, endpoint: &str) -> Result<Metrics, CliError> {
    let page = etcfs_client::metrics(&config(global, &global.security, vec![endpoint.to_owned()])?).await?;
    Ok(Metrics { page })
}

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    page: String,
}

impl Metrics {
    #[cfg(test)]
    pub(crate) fn of(page: String) -> Self {
        Self { page }
    }

    /// The first of these that is there, without labels.
    pub(crate) fn value(&self, names: &[&str]) -> Option<f64> {
        names.iter().find_map(|name| {
            let line = self.page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.trim().parse().ok()
        })
    }
}

fn config(global: &Global, security: &Security, endpoints: Vec<String>) -> Result<Config, CliError> {
    Ok(Config {
        tls: tls(security, &endpoints)?,
        credentials: None,
        password: None,
        endpoints,
        connect_timeout: global.dial_timeout,
        request_timeout: global.command_timeout,
        keepalive_interval: global.keepalive_time,
        keepalive_timeout: global.keepalive_timeout,
        request_bytes_max: bytes(global.max_request_bytes),
        answer_bytes_max: bytes(global.max_recv_bytes).unwrap_or(ANSWER_BYTES_MAX),
    })
}

/// A bound that 0 stands for none of.
fn bytes(number: u32) -> Option<usize> {
    usize::try_from(number).ok().filter(|&bytes| bytes > 0)
}

/// Where each member of the cluster says that clients reach it.
pub(crate) async fn endpoints_of_cluster(global: &Global) -> Result<Vec<String>, CliError> {
    let request = MemberListRequest { linearizable: true };
    let answer = client(global)?.cluster().member_list(request).await?;
    Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// As etcdctl has it: endpoints without a scheme are spoken to in TLS once there is a certificate, or
/// if speaking in clear is forbidden.
fn tls(security: &Security, endpoints: &[String]) -> Result<Option<Tls>, CliError> {
    let identity = match (&security.cert, &security.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(CliError::arguments("--cert and --key go together: a certificate and its key")),
    };
    let is_asked_for = identity.is_some() || security.cacert.is_some() || !security.insecure_transport;
    if !is_asked_for && !endpoints.iter().any(|endpoint| endpoint.trim().starts_with("https:")) {
        return Ok(None);
    }
    let (ca, skip_verify) = (security.cacert.clone(), security.insecure_skip_tls_verify);
    Ok(Some(Tls { ca, identity, skip_verify }))
}

fn credentials(security: &Security) -> Result<Option<Credentials>, CliError> {
    let Some(user) = &security.user else { return Ok(None) };
    let (user, password) = match (user.split_once(':'), &security.password) {
        // With a password of its own, the name may have a colon.
        (_, Some(password)) => (user.as_str(), password.clone()),
        (Some((user, password)), None) => (user, password.to_owned()),
        (None, None) if let Some(file) = &security.password_file => (user.as_str(), password_of(file)?),
        (None, None) => {
            let asked = rpassword::prompt_password("Password: ");
            let no_terminal = |error| CliError::arguments(format!("no password can be asked for: {error}"));
            (user.as_str(), asked.map_err(no_terminal)?)
        }
    };
    Ok(Some(Credentials { user: user.to_owned(), password }))
}

/// The first line of a file that nobody else may read.
fn password_of(path: &Path) -> Result<String, CliError> {
    let failed = |why: &dyn std::fmt::Display| CliError::arguments(format!("{}: {why}", path.display()));
    let mode = fs::metadata(path).map_err(|error| failed(&error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(failed(&"others may read the password").hint(format!("chmod 600 {}", path.display())));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# HELP a_total x\na_total_more 1\na_total{l=\"x\"} 2\na_total 3\nb 1.5e+07\n".to_owned();
        let metrics = Metrics { page };
        assert_eq!(metrics.value(&["none", "a_total"]), Some(3.0));
        assert_eq!(metrics.value(&["b"]), Some(15e6));
        assert_eq!(metrics.value(&["c"]), None);
    }

    #[test]
    fn a_password_that_others_may_read_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret\nmore").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(password_of(file.path()).unwrap_err().message().contains("others may read"));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(password_of(file.path()).unwrap(), "secret");
    }

    fn security() -> Security {
        Security {
            cacert: None,
            cert: None,
            key: None,
            insecure_transport: true,
            insecure_skip_tls_verify: false,
            user: None,
            password: None,
            password_file: None,
        }
    }

    #[test]
    fn tls_is_spoken_where_it_is_asked_for() {
        let of = |security: &Security, endpoint: &str| tls(security, &[endpoint.to_owned()]).unwrap();
        let plain = security();
        assert_eq!(of(&plain, "a:1"), None);
        assert_eq!(of(&plain, "https://a:1"), Some(Tls::default()));
        assert_eq!(of(&Security { insecure_transport: false, ..plain.clone() }, "a:1"), Some(Tls::default()));
        let trusting = Security { insecure_skip_tls_verify: true, ..plain.clone() };
        assert_eq!(of(&trusting, "a:1"), None, "nothing to verify");
        assert!(of(&trusting, "https://a:1").unwrap().skip_verify);
        let ca = Security { cacert: Some("ca".into()), ..plain.clone() };
        assert_eq!(of(&ca, "a:1").unwrap().ca, Some("ca".into()));
        let half = Security { cert: Some("c".into()), ..plain };
        assert!(tls(&half, &[]).is_err());
    }

    #[test]
    fn a_password_is_the_flags_or_behind_the_colon() {
        let of = |user: &str, password: Option<&str>| {
            let (user, password) = (Some(user.to_owned()), password.map(str::to_owned));
            let given = credentials(&Security { user, password, ..security() }).unwrap().unwrap();
            (given.user, given.password)
        };
        assert_eq!(of("a:b:c", None), ("a".into(), "b:c".into()));
        assert_eq!(of("a:b", Some("c")), ("a:b".into(), "c".into()));
        assert_eq!(credentials(&security()).unwrap(), None);
    }
}
