//! Where a socket listens or dials.

use std::fmt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;

/// An address, as written `scheme://place`.
///
/// Every method that takes an address takes a string as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `tcp://host:port`. The host is a name, an IPv4 address, an IPv6 address in brackets or, to listen on every IPv4
    /// interface, `*`. Port 0 lets the system choose.
    Tcp {
        /// The host, an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `tls+tcp://host:port`: the same inside TLS. Needs the feature `tls`.
    Tls {
        /// The host, an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `ipc://path`: a Unix domain socket in the file system.
    Ipc(PathBuf),
    /// `inproc://name`: within this process, without any socket of the system.
    Inproc(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Tls { host, port } => ("tls+tcp", host, port),
            Self::Ipc(path) => return write!(f, "ipc://{}", path.display()),
            Self::Inproc(name) => return write!(f, "inproc://{name}"),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadAddress { address: text.to_owned(), reason };
        let (scheme, place) = text.split_once("://").ok_or_else(|| bad("no scheme"))?;
        match scheme {
            "tcp" => host_and_port(place).map(|(host, port)| Self::Tcp { host, port }).map_err(bad),
            "tls+tcp" => host_and_port(place).map(|(host, port)| Self::Tls { host, port }).map_err(bad),
            "ipc" if place.is_empty() || place.contains('\0') => Err(bad("no path")),
            "ipc" if SocketAddr::from_pathname(place).is_err() => {
                Err(bad("the path is longer than the system allows for a socket (107 bytes on Linux)"))
            }
            "ipc" => Ok(Self::Ipc(PathBuf::from(place))),
            "inproc" if place.is_empty() => Err(bad("no name")),
            "inproc" => Ok(Self::Inproc(place.to_owned())),
            _ => Err(bad("unknown scheme")),
        }
    }
}

/// Splits `host:port`, in which an IPv6 address stands in brackets.
fn host_and_port(place: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = place.rsplit_once(':').ok_or("no port")?;
    let port = port.parse().map_err(|_| "the port is not a number from 0 to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or("a bracket is not closed")?;
            inner.parse::<std::net::Ipv6Addr>().map_err(|_| "not an IPv6 address")?;
            inner
        }
        None if host.contains([':', '/', ']']) => return Err("an IPv6 address needs brackets"),
        None => host,
    };
    if host.is_empty() { Err("no host") } else { Ok((host.to_owned(), port)) }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for text in [
            "tcp://127.0.0.1:5000",
            "tcp://[::1]:0",
            "tcp://*:80",
            "tcp://host.example:65535",
            "tls+tcp://[fe80::1]:1",
            "ipc:///tmp/a b",
            "ipc://relative",
            "inproc://name",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_address_is_refused_with_its_reason() {
        let long = format!("ipc:///{}", "x".repeat(120));
        for text in [
            "",
            "tcp",
            "tcp://",
            "tcp://host",
            "tcp://:80",
            "tcp://host:65536",
            "tcp://host:-1",
            "tcp://::1:80",
            "tcp://[::1:80",
            "tcp://[nonsense]:80",
            "tcp://host/path:80",
            "ipc://",
            long.as_str(),
            "inproc://",
            "http://host:80",
            "ws://host:80",
        ] {
            assert!(matches!(text.parse::<Address>(), Err(Error::BadAddress { .. })), "{text}");
        }
    }
}
