//! The listener's TLS: a certificate and its key from PEM files, which can be read anew while the server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::settings::TlsFiles;

/// Why the listener's certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// There is no private key in the file.
    #[error("{} holds no private key in PEM form that is not encrypted", .0.display())]
    NoKey(PathBuf),
    /// They do not fit together, or TLS does not take them.
    #[error("the listener's certificate and key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The listener's TLS, which [`reload`] changes while it is in use.
pub(crate) fn listener(files: &TlsFiles) -> Result<RustlsConfig, TlsError> {
    Ok(RustlsConfig::from_config(Arc::new(read(files)?)))
}

/// Reads the files anew. The ones before stay when these cannot be used.
pub(crate) fn reload(config: &RustlsConfig, files: &TlsFiles) -> Result<(), TlsError> {
    config.reload_from_config(Arc::new(read(files)?));
    Ok(())
}

/// Reads certificate and key, and sees that TLS takes them.
///
/// # Errors
/// When it does not.
pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
    read(files).map(|_| ())
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&bytes(&files.certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(files.certificate.clone()))?;
    let key = PrivateKeyDer::from_pem_slice(&zeroize::Zeroizing::new(bytes(&files.key)?))
        .map_err(|_| TlsError::NoKey(files.key.clone()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read {
        path: path.to_owned(),
        error,
    })
}
