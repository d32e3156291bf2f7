//! URLs of hosts and services.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode_byte, utf8_percent_encode};

use crate::error::{Error, Result};
use crate::host::{Host, Ports};
use crate::service::Service;

/// What is looked for when no scheme is given.
const AUTOMATIC: [&str; 2] = ["http", "https"];
/// All but what RFC 3986 calls unreserved.
const USER_INFO: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const NAME: &AsciiSet = &USER_INFO
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

impl Host {
    /// Its URL: `scheme://[user[:password]@]hostname:port` and the path.
    ///
    /// An empty `scheme` is `http` if there is such a port, else `https`. User and password are percent-encoded, IPv6
    /// addresses put in brackets. A path that is not empty begins with a slash, which is added when it is missing; it may
    /// have a query behind `?`; what cannot stand there, `#` too, is percent-encoded, and what is so already is left alone.
    ///
    /// The result shows the password: it is not for logs.
    ///
    /// # Errors
    /// [`Error::UnknownScheme`]: no port under that scheme, or it is no scheme that a URL can have.
    /// [`Error::InvalidHost`]: there is no hostname.
    pub fn url(&self, scheme: &str, path: &str) -> Result<String> {
        self.public_parts().url(scheme, path)
    }

    /// As [`Host::url`], within the private network: by [`Host::private_hostname`] and [`Host::private_ports`] (by
    /// [`Host::ports`] when it has no private ones at all). A host without a private hostname gives its [`Host::url`].
    ///
    /// # Errors
    /// As [`Host::url`].
    pub fn private_url(&self, scheme: &str, path: &str) -> Result<String> {
        self.private_parts().url(scheme, path)
    }

    /// Host and port as they stand in a URL; `None` when it has no such port.
    #[cfg(feature = "tonic")]
    pub(crate) fn address(&self, is_public: bool, port: &str) -> Option<String> {
        let parts = if is_public { self.public_parts() } else { self.private_parts() };
        let (_, port) = parts.named(port).filter(|_| !parts.hostname.is_empty())?;
        let mut address = String::new();
        push_hostname(&mut address, parts.hostname);
        Some(format!("{address}:{port}"))
    }

    fn public_parts(&self) -> Parts<'_> {
        self.parts(&self.hostname, &self.ports, "name")
    }

    fn private_parts(&self) -> Parts<'_> {
        if self.private_hostname.is_empty() {
            return self.public_parts();
        }
        let ports = if self.private_ports.is_empty() { &self.ports } else { &self.private_ports };
        self.parts(&self.private_hostname, ports, "private_hostname")
    }

    fn parts<'a>(&'a self, hostname: &'a str, ports: &'a Ports, field: &'static str) -> Parts<'a> {
        Parts { user: &self.user, password: self.password.expose(), hostname, ports, field }
    }
}

impl Service {
    /// The URL of a public service, in the form of [`Host::url`]; an empty `scheme` is `http` or `https` here too. A private
    /// service has no ports of its own: ask one of its hosts.
    ///
    /// # Errors
    /// As [`Host::url`].
    pub fn url(&self, scheme: &str, path: &str) -> Result<String> {
        let parts = Parts {
            user: &self.user,
            password: self.password.expose(),
            hostname: &self.hostname,
            ports: &self.ports,
            field: "hostname",
        };
        parts.url(scheme, path)
    }
}

/// What a URL is made of.
struct Parts<'a> {
    user: &'a str,
    password: &'a str,
    hostname: &'a str,
    ports: &'a Ports,
    /// The JSON name of the hostname.
    field: &'static str,
}

impl Parts<'_> {
    fn url(&self, scheme: &str, path: &str) -> Result<String> {
        let (scheme, port) =
            self.port(scheme).ok_or_else(|| Error::UnknownScheme { scheme: scheme.to_owned() })?;
        if self.hostname.is_empty() {
            return Err(Error::InvalidHost { field: self.field, reason: "is empty".into() });
        }
        let mut url = format!("{scheme}://");
        if !self.user.is_empty() {
            url.extend(utf8_percent_encode(self.user, USER_INFO));
            if !self.password.is_empty() {
                url.push(':');
                url.extend(utf8_percent_encode(self.password, USER_INFO));
            }
            url.push('@');
        }
        push_hostname(&mut url, self.hostname);
        // Infallible: it is a text that is written to.
        let _ = write!(url, ":{port}");
        push_path(&mut url, path);
        Ok(url)
    }

    /// Scheme and port; none if the port is none either, which only a host that was made by hand can have.
    fn port<'s>(&'s self, scheme: &'s str) -> Option<(&'s str, u16)> {
        match scheme {
            "" => AUTOMATIC.into_iter().find_map(|scheme| self.named(scheme)),
            _ => self.named(scheme).filter(|_| is_scheme(scheme)),
        }
    }

    fn named<'s>(&self, name: &'s str) -> Option<(&'s str, u16)> {
        Some((name, self.ports.get(name)?.parse().ok()?))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

fn push_hostname(url: &mut String, hostname: &str) {
    let bare = hostname.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hostname);
    let (address, zone) = bare.split_once('%').map_or((bare, None), |(address, zone)| (address, Some(zone)));
    if address.parse::<Ipv6Addr>().is_err() {
        return url.extend(utf8_percent_encode(hostname, NAME));
    }
    url.push('[');
    url.push_str(address);
    if let Some(zone) = zone {
        url.push_str("%25");
        url.extend(utf8_percent_encode(zone.strip_prefix("25").unwrap_or(zone), USER_INFO));
    }
    url.push(']');
}

fn push_path(url: &mut String, path: &str) {
    if !path.is_empty() && !path.starts_with('/') {
        url.push('/');
    }
    let mut bytes = path.as_bytes();
    while let [byte, rest @ ..] = bytes {
        let is_encoded =
            matches!(rest, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        match byte {
            b'%' if is_encoded => url.push('%'),
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(byte) => {
                url.push(char::from(*byte));
            }
            _ => url.push_str(percent_encode_byte(*byte)),
        }
        bytes = rest;
    }
}
