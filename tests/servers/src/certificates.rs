//! Certificates for servers on loopback.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A certificate for `localhost` and 127.0.0.1, and the authority that signed it, which nobody else trusts; new ones
/// each time. Their files go with the last clone.
#[derive(Debug, Clone)]
pub struct Certificates {
    dir: Arc<TempDir>,
    authority_pem: String,
}

impl Certificates {
    /// Creates them.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tierkeep-certificates-").tempdir()?;
        let (authority, certificate, key) = sign().map_err(io::Error::other)?;
        let certificates = Self { dir: Arc::new(dir), authority_pem: authority };
        std::fs::write(certificates.authority(), &certificates.authority_pem)?;
        std::fs::write(certificates.certificate(), certificate)?;
        std::fs::write(certificates.key(), key)?;
        Ok(certificates)
    }

    /// The authority's certificate, PEM: what a client has to trust.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The file of the authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// The file of the server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    /// The file of the server's key.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }
}

/// The authority, the server's certificate and its key.
fn sign() -> Result<(String, String, String), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "Tierkeep's tests");
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = server.signed_by(&key, &issuer)?.pem();
    Ok((authority_pem, certificate, key.serialize_pem()))
}
