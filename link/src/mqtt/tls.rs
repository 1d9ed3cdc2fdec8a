//! TLS with the certificates that files name.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest file of certificates, bytes: all authorities of a system take 220 kB.
const MOST_BYTES: u64 = 1 << 20;

/// Files for TLS. They are read again for each connection, so that renewed certificates need
/// no restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that are trusted, as PEM; `None` for those that
    /// browsers trust.
    pub ca: Option<PathBuf>,
    /// Certificates and key of the client, as PEM; `None` where a password or nothing is
    /// asked for.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file has not what it should.
    #[error("{}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the cure.
        fault: String,
    },
}

impl Tls {
    /// The configuration for a connection.
    ///
    /// # Errors
    /// If a file cannot be read, or key and certificate do not match.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| content(path, error.to_string()))?;
                }
            }
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .map_err(|error| content(Path::new("TLS"), error.to_string()))?
            .with_root_certificates(roots);
        let config = match &self.client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let text = read(key)?;
                let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
                    content(key, "has no private key as PEM (PKCS #8, SEC1 or PKCS #1)".to_owned())
                })?;
                config.with_client_auth_cert(certificates(certificate)?, secret).map_err(
                    |error| {
                        let mut fault = format!("does not fit {}: {error}", certificate.display());
                        if fault.contains("UnsupportedCertVersion") {
                            fault += " (a certificate of version 3 has an extension, such as a \
                                  subjectAltName)";
                        }
                        content(key, fault)
                    },
                )?
            }
        };
        Ok(Arc::new(config))
    }
}

fn content(path: &Path, fault: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), fault }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        _ => Err(content(path, "has no certificate as PEM".to_owned())),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let fault = |reason: String| TlsError::Read { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| fault(error.to_string()))?;
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return Err(fault("is no file".to_owned()));
    }
    let mut text = Zeroizing::new(vec![]);
    file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(|error| fault(error.to_string()))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(fault(format!("is longer than {MOST_BYTES} bytes")));
    }
    Ok(text)
}
