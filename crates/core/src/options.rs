//! How to connect: deadlines, TLS, credentials, namespace.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::key::Namespace;

/// Options of [`Client::connect_with`](crate::Client::connect_with).
///
/// ```
/// # use std::time::Duration;
/// let options = sereno_core::ConnectOptions::default().deadline(Duration::from_secs(3));
/// assert_eq!(options.deadline, Duration::from_secs(3));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// How long any one call may take, connecting, authenticating and trying other members included. Default: 5 s.
    ///
    /// It should stay below the 7 s after which etcd itself gives up, so that the more telling answer is ours.
    pub deadline: Duration,
    /// How long one member may take to answer before another one is tried. Default: 1.5 s, and never more than a third
    /// of `deadline` when there are several endpoints.
    pub attempt: Duration,
    /// Where all keys live. Default: `sereno`.
    pub namespace: Namespace,
    /// TLS material; needed for `https` endpoints whose authority the system does not know. Endpoints without a scheme are
    /// `https` with it, and those with `http` are refused. Default: none.
    pub tls: Option<Tls>,
    /// User and password. Default: none.
    pub credentials: Option<Credentials>,
    /// Send the password over plain `http` to something else than loopback. Default: false.
    pub allow_plaintext_credentials: bool,
    /// The largest answer accepted, in bytes. Default: 64 MiB (etcd's own limits keep answers smaller; gRPC's default
    /// of 4 MiB is too small for a backlog of large values).
    pub decode_limit: usize,
    /// HTTP/2 ping interval on connections with open streams. Default: 10 s; at least 6 s, because etcd ends the
    /// connections of clients that ping more often than every 5 s.
    pub ping_interval: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            attempt: Duration::from_millis(1500),
            namespace: Namespace::default(),
            tls: None,
            credentials: None,
            allow_plaintext_credentials: false,
            decode_limit: 64 << 20,
            ping_interval: Duration::from_secs(10),
        }
    }
}

impl ConnectOptions {
    /// Sets [`ConnectOptions::deadline`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets [`ConnectOptions::attempt`].
    #[must_use]
    pub fn attempt(mut self, attempt: Duration) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets [`ConnectOptions::namespace`].
    #[must_use]
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Sets [`ConnectOptions::tls`].
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets [`ConnectOptions::credentials`].
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into() });
        self
    }

    /// Sets [`ConnectOptions::allow_plaintext_credentials`].
    #[must_use]
    pub fn allow_plaintext_credentials(mut self, allow: bool) -> Self {
        self.allow_plaintext_credentials = allow;
        self
    }

    /// Sets [`ConnectOptions::decode_limit`].
    #[must_use]
    pub fn decode_limit(mut self, bytes: usize) -> Self {
        self.decode_limit = bytes;
        self
    }

    /// Sets [`ConnectOptions::ping_interval`].
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        if self.deadline.is_zero() || self.attempt.is_zero() {
            return refuse("deadline", "deadlines are longer than nothing");
        }
        if self.ping_interval < Duration::from_secs(6) {
            return refuse(
                "ping_interval",
                "etcd ends connections that ping more often than every 5 s; at least 6 s",
            );
        }
        if self.decode_limit < 4 << 20 {
            return refuse("decode_limit", "at least 4 MiB, or ordinary answers would be refused");
        }
        Ok(())
    }
}

/// User and password for etcd's own authentication. `Debug` shows neither.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// TLS material, as PEM text. `Debug` shows none of it.
#[derive(Clone, Default)]
pub struct Tls {
    pub(crate) ca: Option<String>,
    pub(crate) identity: Option<(String, String)>,
    pub(crate) domain: Option<String>,
}

impl Tls {
    /// The authority that signed the servers' certificates. Without it the system's authorities are asked.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<String>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Our own certificate and its key, for clusters that ask their clients for one (mTLS).
    #[must_use]
    pub fn identity_pem(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name expected in the servers' certificates, when it is not the host of the endpoint.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    pub(crate) fn config(&self) -> etcd_client::TlsOptions {
        let mut config = etcd_client::TlsOptions::new();
        config = match &self.ca {
            Some(ca) => config.ca_certificate(etcd_client::Certificate::from_pem(ca)),
            None => config.with_enabled_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(etcd_client::Identity::from_pem(certificate, key));
        }
        if let Some(domain) = &self.domain {
            config = config.domain_name(domain);
        }
        config
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("domain", &self.domain)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_reaches_debug() {
        let options = ConnectOptions::default()
            .credentials("canary-user", "canary-password")
            .tls(Tls::default().ca_pem("canary-ca").identity_pem("canary-cert", "canary-key"));
        assert!(!format!("{options:?}").contains("canary"));
    }

    #[test]
    fn pings_that_etcd_would_punish_are_refused() {
        assert!(ConnectOptions::default().ping_interval(Duration::from_secs(5)).check().is_err());
        assert!(ConnectOptions::default().check().is_ok());
    }
}
