//! One host of a service, as it is stored.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::fields::{Fields, check_hostname, check_ports, check_text};
use crate::secret::Secret;

/// Ports by scheme, such as `http` to `8080`.
pub type Ports = BTreeMap<String, String>;

/// Above it nothing is gained, and sums stay exact.
const MAX_WEIGHT: f64 = 1e6;

/// One host of a service.
///
/// Its stored form is etcd-discovery's; a fleet can have hosts of both. `weight` and `draining` are this library's own:
/// the ancestor ignores them, and they are not written unless they are set.
///
/// ```
/// use sereno_discovery::Host;
///
/// let host = Host::new("api-1.example.org").port("http", 8080).port("https", 8443);
/// let public = host.public(true).user("svc").password("not shown").private_hostname("10.0.0.7");
/// assert!(!format!("{public:?} {public}").contains("not shown"));
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Host {
    /// Its name or address, public if it is. JSON `name`.
    pub hostname: String,
    /// The service it belongs to; set by registering. JSON `service_name`.
    pub service_name: String,
    /// Where it listens. JSON `ports`.
    pub ports: Ports,
    /// User of its URLs. JSON `user`.
    pub user: String,
    /// Password of its URLs. JSON `password`.
    pub password: Secret,
    /// Whether the service is reached under its public name, with credentials that all its hosts share. JSON `public`.
    pub public: bool,
    /// Its name or address within the private network. JSON `private_hostname`. Default when registering: the
    /// hostname unless it is public, else the machine's name.
    pub private_hostname: String,
    /// Where it listens there. JSON `private_ports`. Default when registering: `ports`.
    pub private_ports: Ports,
    /// Whether the service matters to its users more than others do. JSON `critical`.
    pub critical: bool,
    /// The shard it serves. JSON `shard`.
    pub shard: String,
    /// Its name within the service; set by registering. JSON `uuid`.
    pub uuid: String,
    /// Its share of the load beside others, from 0 (nothing) to 1,000,000. Default: 1. JSON `weight`.
    pub weight: f64,
    /// It is there, but shall not be chosen any more. JSON `draining`.
    pub draining: bool,
    /// Fields that others wrote and this version does not know; written again with the rest.
    pub extra: BTreeMap<String, Value>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            service_name: String::new(),
            ports: Ports::new(),
            user: String::new(),
            password: Secret::default(),
            public: false,
            private_hostname: String::new(),
            private_ports: Ports::new(),
            critical: false,
            shard: String::new(),
            uuid: String::new(),
            weight: 1.0,
            draining: false,
            extra: BTreeMap::new(),
        }
    }
}

impl Host {
    /// A private host of that name or address, without ports.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self { hostname: hostname.into(), ..Self::default() }
    }

    /// Adds one of [`Host::ports`].
    #[must_use]
    pub fn port(mut self, scheme: impl Into<String>, port: u16) -> Self {
        self.ports.insert(scheme.into(), port.to_string());
        self
    }

    /// Adds one of [`Host::private_ports`].
    #[must_use]
    pub fn private_port(mut self, scheme: impl Into<String>, port: u16) -> Self {
        self.private_ports.insert(scheme.into(), port.to_string());
        self
    }

    /// Sets [`Host::user`].
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets [`Host::password`].
    #[must_use]
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = password.into();
        self
    }

    /// Sets [`Host::public`].
    #[must_use]
    pub fn public(mut self, public: bool) -> Self {
        self.public = public;
        self
    }

    /// Sets [`Host::private_hostname`].
    #[must_use]
    pub fn private_hostname(mut self, hostname: impl Into<String>) -> Self {
        self.private_hostname = hostname.into();
        self
    }

    /// Sets [`Host::critical`].
    #[must_use]
    pub fn critical(mut self, critical: bool) -> Self {
        self.critical = critical;
        self
    }

    /// Sets [`Host::shard`].
    #[must_use]
    pub fn shard(mut self, shard: impl Into<String>) -> Self {
        self.shard = shard.into();
        self
    }

    /// Sets [`Host::weight`].
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// The stored form. Fields that are not set are left out, as the ancestor does, except the first three.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = Map::new();
        let texts =
            |texts: &Ports| texts.iter().map(|(key, text)| (key.clone(), text.clone().into())).collect();
        json.insert("name".into(), self.hostname.clone().into());
        json.insert("service_name".into(), self.service_name.clone().into());
        let ports = if self.ports.is_empty() { Value::Null } else { Value::Object(texts(&self.ports)) };
        json.insert("ports".into(), ports);
        let mut text = |name: &str, text: &str| {
            if !text.is_empty() {
                json.insert(name.into(), text.into());
            }
        };
        text("user", &self.user);
        text("password", self.password.expose());
        text("private_hostname", &self.private_hostname);
        text("shard", &self.shard);
        text("uuid", &self.uuid);
        if !self.private_ports.is_empty() {
            json.insert("private_ports".into(), Value::Object(texts(&self.private_ports)));
        }
        for (name, flag) in
            [("public", self.public), ("critical", self.critical), ("draining", self.draining)]
        {
            if flag {
                json.insert(name.into(), true.into());
            }
        }
        if self.weight.to_bits() != 1_f64.to_bits() {
            json.insert("weight".into(), self.weight.into());
        }
        for (name, value) in &self.extra {
            json.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(json).to_string().into_bytes()
    }

    /// Reads the stored form. Errors say what is wrong and show nothing of the text.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let host = Self {
            hostname: fields.text("name")?,
            service_name: fields.text("service_name")?,
            ports: fields.texts("ports")?,
            user: fields.text("user")?,
            password: fields.text("password")?.into(),
            public: fields.flag("public")?,
            private_hostname: fields.text("private_hostname")?,
            private_ports: fields.texts("private_ports")?,
            critical: fields.flag("critical")?,
            shard: fields.text("shard")?,
            uuid: fields.text("uuid")?,
            weight: fields.number("weight")?.unwrap_or(1.0),
            draining: fields.flag("draining")?,
            extra: fields.rest()?,
        };
        host.check().map_err(|(field, reason)| format!("{field}: {reason}"))?;
        Ok(host)
    }

    /// As [`Host::check`], for what is to be registered.
    pub(crate) fn valid(&self) -> Result<()> {
        self.check().map_err(|(field, reason)| Error::InvalidHost { field, reason })
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        check_hostname("name", &self.hostname)?;
        check_hostname("private_hostname", &self.private_hostname)?;
        check_ports("ports", &self.ports)?;
        check_ports("private_ports", &self.private_ports)?;
        for (name, text) in [("user", self.user.as_str()), ("shard", &self.shard), ("uuid", &self.uuid)] {
            check_text(name, text)?;
        }
        if !(0.0..=MAX_WEIGHT).contains(&self.weight) {
            return Err(("weight", format!("{} is not from 0 to {MAX_WEIGHT}", self.weight)));
        }
        Ok(())
    }
}

/// Shows neither the password nor the values of unknown fields.
impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("hostname", &self.hostname)
            .field("service_name", &self.service_name)
            .field("ports", &self.ports)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("public", &self.public)
            .field("private_hostname", &self.private_hostname)
            .field("private_ports", &self.private_ports)
            .field("critical", &self.critical)
            .field("shard", &self.shard)
            .field("uuid", &self.uuid)
            .field("weight", &self.weight)
            .field("draining", &self.draining)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// The private hostname, or the hostname when there is none.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.private_hostname.is_empty() { &self.hostname } else { &self.private_hostname })
    }
}
