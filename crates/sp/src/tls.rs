//! Certificates for addresses `tls+tcp://`.

use std::fmt;

/// What TLS needs. All of it is PEM. Without the feature `tls` it is not used.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Certificates of authorities that peers are checked against. To dial, it is needed. To listen: when it is given,
    /// clients must show a certificate of these authorities. Default: none.
    pub ca: Option<Vec<u8>>,
    /// The chain of certificates and the private key of this side. To listen, it is needed. Default: none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the certificate of a dialled peer must have. Default: the host of the address.
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// Sets [`TlsOptions::ca`].
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Sets [`TlsOptions::identity`].
    #[must_use]
    pub fn identity(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((chain.into(), key.into()));
        self
    }

    /// Sets [`TlsOptions::server_name`].
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.as_ref().map(Vec::len))
            .field("identity", &self.identity.as_ref().map(|_| "hidden"))
            .field("server_name", &self.server_name)
            .finish()
    }
}
