//! Certificates of a CA of the test's own, made by openssl.

use std::path::{Path, PathBuf};

use crate::{command::sh, machine};

/// A CA and what it signs, in one directory.
#[derive(Debug)]
pub struct Certs {
    dir: tempfile::TempDir,
}

impl Default for Certs {
    fn default() -> Self {
        Self::new()
    }
}

impl Certs {
    /// A CA, and `server` for 127.0.0.1 and localhost.
    pub fn new() -> Self {
        machine::program("openssl");
        let certs = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        certs.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem \
             -subj /CN=ca -days 2",
        );
        certs.sign("server");
        certs
    }

    /// A certificate, for 127.0.0.1, whose common name is `name`.
    pub fn sign(&self, name: &str) {
        self.sign_for(name, "localhost");
    }

    /// The same, for a further host.
    pub fn sign_for(&self, name: &str, host: &str) {
        self.run(&format!(
            "printf 'subjectAltName=IP:127.0.0.1,DNS:{host}\\n' >{name}.ext && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key.new -out {name}.csr \
               -subj /CN={name} && \
             openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext \
               -out {name}.pem.new && \
             mv {name}.key.new {name}.key && mv {name}.pem.new {name}.pem"
        ));
    }

    /// Takes over a certificate and its key that another CA has signed.
    pub fn take(&self, other: &Self, name: &str) {
        for suffix in ["pem", "key"] {
            let file = format!("{name}.{suffix}");
            // Whole at any moment: a server may be reading it.
            let new = self.path(&format!("{file}.new"));
            std::fs::copy(other.path(&file), &new).expect("the certificate is copied");
            std::fs::rename(&new, self.path(&file)).expect("the certificate is put in place");
        }
    }

    /// Lists the certificates that are not taken any more in `revoked.pem`.
    pub fn revoke(&self, names: &[&str]) {
        let ca = "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem";
        let revoked: String = names.iter().map(|name| format!("{ca} -revoke {name}.pem && ")).collect();
        self.run(&format!(
            "printf '[ca]\ndefault_ca=own\n[own]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n\
               default_crl_days=2\n' >ca.cnf && \
             : >index && echo 01 >number && {revoked} {ca} -gencrl -out revoked.pem.new && \
             mv revoked.pem.new revoked.pem"
        ));
    }

    fn run(&self, script: &str) {
        sh(self.dir.path(), &format!("({script}) 2>&1")).ok();
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As a command line wants it.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}
