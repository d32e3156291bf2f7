//! What is said of a service as a whole, as it is stored.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::fields::{Fields, check_hostname, check_ports, check_text};
use crate::host::{Host, Ports};
use crate::secret::Secret;

/// A service as a whole: one record that the registrants of all its hosts share.
///
/// A public service has one public name, and credentials that all its public hosts take over: the last public registrant
/// sets them. A service that was only ever registered by very old clients has no record, which is no error.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Service {
    /// Its name. JSON `name`.
    pub name: String,
    /// Whether it matters to its users more than others do. JSON `critical`.
    pub critical: bool,
    /// Its public name. JSON `hostname`.
    pub hostname: String,
    /// User of its public URLs. JSON `user`.
    pub user: String,
    /// Password of its public URLs. JSON `password`.
    pub password: Secret,
    /// Where it listens under its public name. JSON `ports`.
    pub ports: Ports,
    /// Whether it has a public name. JSON `public`.
    pub public: bool,
    /// Fields that others wrote and this version does not know.
    pub(crate) extra: BTreeMap<String, Value>,
}

impl Service {
    /// A private service of which nothing is known but its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// What a host says of its service: name and `critical`, and the public parts only when it is public.
    pub(crate) fn of(host: &Host) -> Self {
        let private = Self { name: host.service_name.clone(), critical: host.critical, ..Self::default() };
        if !host.public {
            return private;
        }
        Self {
            hostname: host.hostname.clone(),
            user: host.user.clone(),
            password: host.password.clone(),
            ports: host.ports.clone(),
            public: true,
            ..private
        }
    }

    /// The stored form, as the ancestor writes it.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = Map::new();
        json.insert("name".into(), self.name.clone().into());
        json.insert("critical".into(), self.critical.into());
        for (name, text) in
            [("hostname", self.hostname.as_str()), ("user", &self.user), ("password", self.password.expose())]
        {
            if !text.is_empty() {
                json.insert(name.into(), text.into());
            }
        }
        if !self.ports.is_empty() {
            let ports = self.ports.iter().map(|(scheme, port)| (scheme.clone(), port.clone().into()));
            json.insert("ports".into(), Value::Object(ports.collect()));
        }
        if self.public {
            json.insert("public".into(), true.into());
        }
        for (name, value) in &self.extra {
            json.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(json).to_string().into_bytes()
    }

    /// Reads the stored form; `name` is the service's by its key, for records that do not say it. Errors say what is wrong
    /// and show nothing of the text.
    pub(crate) fn from_json(name: &str, text: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let mut service = Self {
            name: fields.text("name")?,
            critical: fields.flag("critical")?,
            hostname: fields.text("hostname")?,
            user: fields.text("user")?,
            password: fields.text("password")?.into(),
            ports: fields.texts("ports")?,
            public: fields.flag("public")?,
            extra: fields.rest()?,
        };
        if service.name.is_empty() {
            name.clone_into(&mut service.name);
        }
        service.check().map_err(|(field, reason)| format!("{field}: {reason}"))?;
        Ok(service)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        check_text("name", &self.name)?;
        check_text("user", &self.user)?;
        check_hostname("hostname", &self.hostname)?;
        check_ports("ports", &self.ports)
    }
}

/// Shows neither the password nor the values of unknown fields.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("critical", &self.critical)
            .field("hostname", &self.hostname)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("ports", &self.ports)
            .field("public", &self.public)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish()
    }
}
