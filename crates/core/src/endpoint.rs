//! An endpoint: how it may be spelled, and what a failure to reach it suggests.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::{Cause, Error, Result};
use crate::options::ConnectOptions;

/// The port of etcd's clients.
const PORT: u16 = 2379;

/// The canonical form of an endpoint, `scheme://host:port`, if it suits the options.
///
/// The scheme may be missing (`https` with TLS options, else `http`), and so may the port (2379).
pub(crate) fn parse(text: &str, options: &ConnectOptions) -> Result<String> {
    let (scheme, host, port) = split(text, options.tls.is_some()).map_err(|reason| refused(text, reason))?;
    let plain = scheme == "http";
    if plain && options.tls.is_some() {
        return Err(Error::InvalidOption {
            option: "endpoints",
            reason: format!("{text} is plain http, but TLS was asked for; use https://"),
        });
    }
    if plain && options.credentials.is_some() && !options.allow_plaintext_credentials && !is_loopback(&host) {
        return Err(Error::InvalidOption {
            option: "endpoints",
            reason: format!(
                "{text} would carry the password in plain text; use https, or allow_plaintext_credentials"
            ),
        });
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

fn refused(text: &str, reason: String) -> Error {
    // What stands before an @ may be a password, whatever it looks like.
    let endpoint = match text.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => text.to_owned(),
    };
    Error::InvalidEndpoint { endpoint, reason }
}

fn split(text: &str, tls: bool) -> Result<(&'static str, String, u16), String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty; use scheme://host:port, such as http://127.0.0.1:2379".into());
    }
    // First of all, because every other reason quotes a part of the text.
    if text.contains('@') {
        return Err("user and password belong into ConnectOptions::credentials".into());
    }
    let (scheme, rest) = match text.split_once("://") {
        None => (if tls { "https" } else { "http" }, text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
        Some((scheme, _)) => return Err(format!("the scheme {scheme:?} is neither http nor https")),
    };
    let authority = rest.trim_end_matches('/');
    if authority.contains(['/', '?', '#']) {
        return Err("it has a path, a query or a fragment; use scheme://host:port".into());
    }
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, port) =
            bracketed.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or("only a port may follow the IPv6 address")?),
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("{address:?} is not an IPv6 address"));
        }
        (format!("[{address}]"), port)
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address needs brackets: http://[::1]:2379".into());
            }
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        }
    };
    if host.is_empty() {
        return Err("it names no host; use scheme://host:port, such as http://127.0.0.1:2379".into());
    }
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    if !host.starts_with('[') && !host.chars().all(is_name) {
        return Err(format!("{host:?} is not a host name"));
    }
    let port = match port {
        None => PORT,
        Some(port) => self::port(port)?,
    };
    Ok((scheme, host, port))
}

/// The number of a port, or what is wrong with it.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    let number = if text.bytes().all(|digit| digit.is_ascii_digit()) { text.parse().unwrap_or(0) } else { 0 };
    match number {
        0 => Err(format!("{text:?} is not a port; ports are 1 to 65535, etcd's is {PORT}")),
        number => Ok(number),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What went wrong at an endpoint, with its name and, where what was said allows a guess, with the remedy.
///
/// `proven` says whether any member has ever answered this client.
pub(crate) fn explain(endpoint: &str, cause: &Cause, proven: bool) -> Cause {
    let said = cause.to_string();
    let text = said.to_ascii_lowercase();
    let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    let tls = endpoint.starts_with("https://");
    let broke =
        ["broken pipe", "connection closed", "connection reset", "http2 error", "not a result of an error"];
    let remedy = if has(&["grpc-status header missing", "invalid compression flag"]) {
        "an HTTP server answers there, not etcd; check host and port, and any proxy between"
    } else if has(&["connection refused"]) {
        "nothing listens there; check host and port, and that etcd runs"
    } else if has(&["lookup address", "name or service not known", "dns error"]) {
        "the name does not resolve; check it"
    } else if has(&["unknownissuer", "unknown issuer"]) {
        "the server's certificate is signed by an unknown authority; give it to Tls::ca_pem"
    } else if has(&["notvalidforname", "not valid for name"]) {
        "the server's certificate is for another name; give that to Tls::domain"
    } else if let Some(remedy) = of_alert(&text) {
        remedy
    } else if tls && has(&["corrupt message", "invalidcontenttype"]) {
        "the server does not speak TLS there; use http://, or its TLS port"
    } else if has(&["connecting took too long"]) {
        "the host does not answer; check the address and firewalls"
    } else if !proven && has(&["no answer within"]) {
        "it takes connections and says nothing; check that it is etcd's client port, and that etcd has a leader"
    } else if tls
        && !proven
        && has(&["handshake eof", "broken pipe", "connection closed", "connection reset", "close_notify"])
    {
        "the server ends TLS connections; if it expects plain ones, use http://, and if it asks for a client certificate, give one to Tls::identity_pem"
    } else if !tls && !proven && has(&broke) {
        "the server ends plain connections; if it expects TLS, use https://"
    } else {
        return Cause::new(format!("{endpoint}: {said}"));
    };
    Cause::new(format!("{endpoint}: {said} ({remedy})"))
}

/// The remedy for a TLS alert that the server sent. Servers differ in the alert for a missing client certificate: with
/// TLS 1.3 some send `bad_certificate`, others `certificate_required`.
fn of_alert(text: &str) -> Option<&'static str> {
    let (_, alert) = text.split_once("received fatal alert: ")?;
    let is = |names: &[&str]| names.iter().any(|name| alert.starts_with(name));
    if is(&[
        "certificate",
        "badcertificate",
        "nocertificate",
        "unsupportedcertificate",
        "unknownca",
        "accessdenied",
    ]) {
        Some("the server asks for a client certificate that it trusts; give one to Tls::identity_pem")
    } else if is(&["unrecognisedname"]) {
        Some("the server has no certificate for that name; give its name to Tls::domain")
    } else if is(&["handshakefailure", "protocolversion", "insufficientsecurity"]) {
        Some(
            "the server shares no version or cipher of TLS with this client, or asks for a client certificate; give one to Tls::identity_pem",
        )
    } else {
        None
    }
}

/// Whether a plain connection ended as one to a TLS port does: worth a [`speaks_tls`], and no proof.
pub(crate) fn may_want_tls(endpoint: &str, cause: &Cause) -> bool {
    let text = cause.to_string().to_ascii_lowercase();
    let marks =
        ["broken pipe", "connection closed", "connection reset", "http2 error", "not a result of an error"];
    endpoint.starts_with("http://") && marks.iter().any(|mark| text.contains(mark))
}

/// Whether an answer came from an HTTP server that is not etcd. What a proxy says about the server behind it (5xx) or
/// about a crowd (429) may pass by itself, and is not counted.
pub(crate) fn is_foreign(cause: &Cause) -> bool {
    let text = cause.to_string();
    let status = ["response with status: ", "HTTP status code "].iter().find_map(|mark| {
        let (_, after) = text.split_once(mark)?;
        after.get(..3)?.parse::<u16>().ok()
    });
    text.contains(HTTP_1) || status.is_some_and(|status| status < 500 && status != 429)
}

/// What listens at a plain endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// It answers a TLS handshake.
    Tls,
    /// It answers in HTTP/1, so it knows no gRPC.
    Http1,
    /// It is not known.
    Unknown,
}

impl Listener {
    /// Greets in TLS, then in HTTP/2, and looks at how the answers begin. Two connections, without a request.
    pub(crate) async fn find(endpoint: &str, within: Duration) -> Self {
        let Some(address) = endpoint.strip_prefix("http://") else { return Self::Unknown };
        let asked = async {
            // The head of a TLS record: a handshake or an alert, and the version, whose first byte has been 3 since SSL 3.
            if let Ok([21 | 22, 3, ..]) = greet(address, CLIENT_HELLO).await {
                return Self::Tls;
            }
            // Only now, because a TLS server may complain about plain text in HTTP/1.
            match greet(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await {
                Ok(head) if head == *b"HTTP/" => Self::Http1,
                _ => Self::Unknown,
            }
        };
        tokio::time::timeout(within, asked).await.unwrap_or(Self::Unknown)
    }

    /// What that says about an endpoint, in place of how the connection to it happened to end.
    pub(crate) fn explain(self, endpoint: &str) -> Option<Cause> {
        match self {
            Self::Tls => Some(Cause::new(format!("{endpoint}: the server there speaks TLS; use https://"))),
            Self::Http1 => Some(Cause::new(format!("{endpoint}: {HTTP_1}, not etcd; check host and port"))),
            Self::Unknown => None,
        }
    }
}

async fn greet(address: &str, greeting: &[u8]) -> io::Result<[u8; 5]> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(greeting).await?;
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    Ok(head)
}

/// A ClientHello of TLS 1.2 that offers no cipher: every TLS server answers it with an alert, after which nothing follows.
#[rustfmt::skip]
const CLIENT_HELLO: &[u8] = &[
    22, 3, 1, 0, 45, // a handshake record
    1, 0, 0, 41, 3, 3, // ClientHello
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // its random
    0, // no session
    0, 2, 0, 255, // no cipher: only the signal that renegotiation is not wanted
    1, 0, // no compression
];

const HTTP_1: &str = "an HTTP/1 server answers there";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Tls;

    fn plain(text: &str) -> Result<String> {
        parse(text, &ConnectOptions::default())
    }

    #[test]
    fn endpoints_have_one_canonical_form() {
        for (text, canonical) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://127.0.0.1", "http://127.0.0.1:2379"),
            ("127.0.0.1", "http://127.0.0.1:2379"),
            ("127.0.0.1:12379", "http://127.0.0.1:12379"),
            ("localhost", "http://localhost:2379"),
            ("localhost/", "http://localhost:2379"),
            ("http://localhost///", "http://localhost:2379"),
            ("HTTP://localhost", "http://localhost:2379"),
            ("HttpS://etcd-0.etcd:2380", "https://etcd-0.etcd:2380"),
            ("https://etcd_1", "https://etcd_1:2379"),
            ("  http://a:1 ", "http://a:1"),
            ("\thttp://a:1\n", "http://a:1"),
            ("http://a:65535", "http://a:65535"),
            ("http://a:00080", "http://a:80"),
            ("[::1]", "http://[::1]:2379"),
            ("[::1]:99", "http://[::1]:99"),
            ("http://[::1]", "http://[::1]:2379"),
            ("https://[fe80::1]:2379/", "https://[fe80::1]:2379"),
        ] {
            assert_eq!(plain(text).unwrap(), canonical, "{text:?}");
        }
        let secure = ConnectOptions::default().tls(Tls::default());
        assert_eq!(parse("etcd", &secure).unwrap(), "https://etcd:2379");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            (" ", "empty"),
            ("http://", "no host"),
            ("http:///", "no host"),
            ("http://:2379", "no host"),
            (":2379", "no host"),
            ("http://127.0.0.1:99999", "\"99999\" is not a port"),
            ("http://a:65536", "\"65536\" is not a port"),
            ("http://a:0", "\"0\" is not a port"),
            ("http://a:", "\"\" is not a port"),
            ("http://a:x", "\"x\" is not a port"),
            ("http://a:-1", "\"-1\" is not a port"),
            ("http://a: 1", "\" 1\" is not a port"),
            ("ftp://a", "\"ftp\" is neither http nor https"),
            ("unix:///run/etcd.sock", "\"unix\" is neither http nor https"),
            ("://a", "\"\" is neither http nor https"),
            ("http://a/b", "path"),
            ("http://a?x=1", "path, a query"),
            ("http://a#f", "fragment"),
            ("::1", "needs brackets"),
            ("http://::1:2379", "needs brackets"),
            ("http://[::1", "not closed"),
            ("http://[::1]x", "only a port"),
            ("http://[[::1]", "\"[::1\" is not an IPv6 address"),
            ("http://[x]", "\"x\" is not an IPv6 address"),
            ("http://a b", "\"a b\" is not a host name"),
            ("http://a,http://b", "path"),
            ("http://ä", "not a host name"),
        ] {
            let error = plain(text).unwrap_err();
            let Error::InvalidEndpoint { reason: said, .. } = &error else { panic!("{text:?}: {error:?}") };
            assert!(said.contains(reason), "{text:?}: {said}");
            assert!(error.to_string().contains(text), "it names the endpoint: {error}");
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_never_shown() {
        for text in [
            "http://me:canary@host:1",
            "me:canary@host:1",
            "me:canary@http://host:1",
            "canary://x@host:1",
            "http://me:can@canary@host:1",
        ] {
            let error = plain(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
            assert!(
                error.to_string().contains("host:1") && error.to_string().contains("credentials"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_password_goes_in_plain_text_to_loopback_only_unless_that_is_allowed() {
        let options = ConnectOptions::default().credentials("user", "canary");
        for loopback in ["http://127.0.0.1:1", "http://127.9.9.9:1", "localhost", "http://[::1]"] {
            assert!(parse(loopback, &options).is_ok(), "{loopback}");
        }
        for other in ["http://10.0.0.1:1", "etcd", "http://127.0.0.1.example.org:1"] {
            let error = parse(other, &options).unwrap_err();
            assert!(matches!(error, Error::InvalidOption { .. }) && !error.to_string().contains("canary"));
        }
        assert!(parse("http://10.0.0.1:1", &options.allow_plaintext_credentials(true)).is_ok());
    }

    #[test]
    fn a_failure_names_the_endpoint_and_the_remedy() {
        for (endpoint, said, proven, remedy) in [
            ("http://a:1", "connect: Connection refused (os error 111)", true, "nothing listens there"),
            ("http://a:1", "transport error: broken pipe", false, "use https://"),
            ("https://a:1", "received corrupt message of type InvalidContentType", false, "use http://"),
            ("http://a:1", "grpc-status header missing, mapped from HTTP status code 404", false, "not etcd"),
            ("https://a:1", "invalid peer certificate: UnknownIssuer", false, "Tls::ca_pem"),
            ("https://a:1", "received fatal alert: CertificateRequired", true, "Tls::identity_pem"),
            (
                "https://a:1",
                "transport error: received fatal alert: BadCertificate",
                false,
                "Tls::identity_pem",
            ),
            ("https://a:1", "received fatal alert: UnknownCA: broken pipe", false, "Tls::identity_pem"),
            ("https://a:1", "received fatal alert: UnrecognisedName", false, "Tls::domain"),
            ("https://a:1", "received fatal alert: ProtocolVersion", false, "no version or cipher"),
        ] {
            let told = explain(endpoint, &Cause::new(said), proven).to_string();
            assert!(told.starts_with(endpoint) && told.contains(said) && told.contains(remedy), "{told}");
        }
        let told = explain("http://a:1", &Cause::new("transport error: broken pipe"), true).to_string();
        assert!(!told.contains("https"), "it has answered plain calls before: {told}");
    }
}
