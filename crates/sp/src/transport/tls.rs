//! TLS by rustls. The bytes inside are those of TCP.

use std::io;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Stream;
use crate::error::{Error, Result};
use crate::tls::TlsOptions;

/// Ready to begin TLS with a server of a certain name.
pub(crate) struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connector {
    pub(crate) async fn connect(self, stream: TcpStream) -> io::Result<Stream> {
        let stream = self.connector.connect(self.name, stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

pub(crate) async fn accept(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<Stream> {
    let stream = acceptor.accept(stream).await?;
    Ok(Stream::Tls(Box::new(stream.into())))
}

pub(crate) fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor> {
    let (chain, key) = identity(options)?.ok_or_else(|| bad("listening needs an identity"))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error.to_string()))?;
    let builder = match &options.ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider())
                .build()
                .map_err(|error| bad(&error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| bad(&error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(crate) fn connector(options: &TlsOptions, host: &str) -> Result<Connector> {
    let pem = options.ca.as_ref().ok_or_else(|| bad("dialling needs the authority of the peer"))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error.to_string()))?
        .with_root_certificates(roots(pem)?);
    let config = match identity(options)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| bad(&error.to_string()))?
        }
    };
    let name = options.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| bad("the server's name is no name"))?;
    Ok(Connector { connector: TlsConnector::from(Arc::new(config)), name })
}

/// Always the same one, whatever else the process has chosen for itself.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| bad(&error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("no certificate of an authority")) } else { Ok(roots) }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| bad("a certificate is not PEM"))
}

fn identity(options: &TlsOptions) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let Some((chain, key)) = &options.identity else { return Ok(None) };
    // What is wrong with a key is not repeated: the text could hold parts of it.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| bad("the private key is not PEM"))?;
    Ok(Some((certificates(chain)?, key)))
}

fn bad(reason: &str) -> Error {
    Error::BadTls { reason: reason.to_owned() }
}
