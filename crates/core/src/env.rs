//! What the environment says about how to connect.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::endpoint;
use crate::error::{Error, Result};
use crate::key::Namespace;
use crate::options::{ConnectOptions, Tls};

/// Where PEM texts are named.
struct Names {
    ca: &'static str,
    certificate: &'static str,
    key: &'static str,
}

/// etcdctl's names.
const ETCDCTL: Names = Names { ca: "ETCD_CACERT", certificate: "ETCD_CERT", key: "ETCD_KEY" };
/// Those of etcd-discovery and what descends from it.
const DISCOVERY: Names = Names { ca: "ETCD_CACERT", certificate: "ETCD_TLS_CERT", key: "ETCD_TLS_KEY" };

/// The endpoints and options that the environment gives: see [`Client::from_env`](crate::Client::from_env).
pub(crate) fn read(var: impl Fn(&str) -> Option<String>) -> Result<(Vec<String>, ConnectOptions)> {
    // Set to nothing is not set, as with etcdctl.
    let var = |name: &str| var(name).filter(|value| !value.trim().is_empty());
    let mut options = ConnectOptions::default();
    if let Some(name) = var("SERENO_NAMESPACE") {
        options.namespace = Namespace::new(&name)?;
    }
    let mut endpoints = endpoints(&var)?;
    if let Some(tls) = tls(&var)? {
        options.tls = Some(tls);
        // etcd-discovery's variables came with plain addresses, which are meant to be the encrypted ones.
        if var("ETCD_ENDPOINTS").is_none() {
            for endpoint in &mut endpoints {
                if let Some((scheme, rest)) = endpoint.split_once("://")
                    && scheme.eq_ignore_ascii_case("http")
                {
                    *endpoint = format!("https://{rest}");
                }
            }
        }
    }
    if let Some(user) = var("ETCD_USER") {
        // etcdctl's own spelling is `ETCD_USER=name:password`.
        options = match (user.split_once(':'), var("ETCD_PASSWORD")) {
            (_, Some(password)) => options.credentials(user, password),
            (Some((user, password)), None) => options.credentials(user, password),
            (None, None) => return refuse("ETCD_USER", "no ETCD_PASSWORD, and no password after a colon"),
        };
    }
    Ok((endpoints, options))
}

fn refuse<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidOption { option, reason: reason.into() })
}

fn endpoints(var: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let listed = var("ETCD_ENDPOINTS").or_else(|| var("ETCD_HOSTS")).or_else(|| var("ETCD_HOST"));
    let listed = match (listed, var("ETCD_1_PORT_2379_TCP_ADDR")) {
        (Some(listed), _) => listed,
        (None, Some(address)) => {
            let port = var("ETCD_1_PORT_2379_TCP_PORT").unwrap_or_else(|| "2379".into());
            let port = endpoint::port(&port).or_else(|reason| refuse("ETCD_1_PORT_2379_TCP_PORT", reason))?;
            let address = if address.contains(':') { format!("[{address}]") } else { address };
            format!("http://{address}:{port}")
        }
        (None, None) => "http://127.0.0.1:2379".into(),
    };
    // A comma at an end, or two in a row, are no endpoints.
    Ok(listed.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect())
}

fn tls(var: &impl Fn(&str) -> Option<String>) -> Result<Option<Tls>> {
    let is_named = |names: &Names| var(names.certificate).is_some() || var(names.key).is_some();
    let names = if is_named(&DISCOVERY) && !is_named(&ETCDCTL) { DISCOVERY } else { ETCDCTL };
    let in_memory = match var("ETCD_TLS_INMEMORY").as_deref() {
        Some("true") => true,
        None | Some("false") => false,
        Some(_) => return refuse("ETCD_TLS_INMEMORY", "neither \"true\" nor \"false\""),
    };
    let pem = |name: &'static str| var(name).map(|value| pem(name, &value, in_memory)).transpose();
    let tls = pem(names.ca)?.map(|ca| Tls::default().ca_pem(ca));
    match (pem(names.certificate)?, pem(names.key)?) {
        (Some(certificate), Some(key)) => Ok(Some(tls.unwrap_or_default().identity_pem(certificate, key))),
        (None, None) => Ok(tls),
        _ => refuse(names.certificate, format!("{} and {} go together", names.certificate, names.key)),
    }
}

/// The text a variable stands for: of the file it names, or itself in base64. What is wrong never shows the value, which
/// may be a key.
fn pem(name: &'static str, value: &str, in_memory: bool) -> Result<String> {
    if !in_memory {
        let read = std::fs::read_to_string(Path::new(value));
        return read.or_else(|error| refuse(name, format!("{value}: {error}")));
    }
    let folded: String = value.split_whitespace().collect();
    let Ok(bytes) = STANDARD.decode(folded) else { return refuse(name, "not base64") };
    match String::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN ") => Ok(text),
        _ => refuse(name, "not PEM in base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn endpoints_of(vars: &[(&str, &str)]) -> Vec<String> {
        read(env(vars)).unwrap().0
    }

    #[test]
    fn the_environment_gives_endpoints_and_credentials() {
        let (endpoints, options) = read(env(&[
            ("ETCD_ENDPOINTS", "http://a:1, http://b:2"),
            ("ETCD_USER", "me:pw"),
            ("SERENO_NAMESPACE", "prod/x"),
        ]))
        .unwrap();
        assert_eq!(endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!(
            options.credentials.as_ref().map(|c| (c.user.as_str(), c.password.as_str())),
            Some(("me", "pw"))
        );
        assert_eq!(options.namespace.root().as_bytes(), b"prod/x/");
    }

    #[test]
    fn the_first_of_the_known_variables_counts() {
        let mut vars = vec![
            ("ETCD_ENDPOINTS", "http://one:1"),
            ("ETCD_HOSTS", "http://two:2,http://three:3"),
            ("ETCD_HOST", "http://four:4"),
            ("ETCD_1_PORT_2379_TCP_ADDR", "172.17.0.5"),
            ("ETCD_1_PORT_2379_TCP_PORT", "2380"),
        ];
        let expected: [&[&str]; 6] = [
            &["http://one:1"],
            &["http://two:2", "http://three:3"],
            &["http://four:4"],
            &["http://172.17.0.5:2380"],
            &["http://127.0.0.1:2379"],
            &["http://127.0.0.1:2379"],
        ];
        for expected in expected {
            assert_eq!(endpoints_of(&vars), expected);
            if !vars.is_empty() {
                vars.remove(0);
            }
        }
        assert_eq!(endpoints_of(&[("ETCD_1_PORT_2379_TCP_ADDR", "fe80::1")]), ["http://[fe80::1]:2379"]);
        assert_eq!(endpoints_of(&[("ETCD_ENDPOINTS", ""), ("ETCD_HOST", "http://h:1")]), ["http://h:1"]);
    }

    #[test]
    fn tls_comes_from_files_or_from_base64_and_makes_plain_addresses_encrypted_ones() {
        let ca = STANDARD.encode("-----BEGIN CERTIFICATE-----\nca");
        let cert = STANDARD.encode("-----BEGIN CERTIFICATE-----\ncert");
        let key = STANDARD.encode("-----BEGIN PRIVATE KEY-----\nkey");
        let vars = [
            ("ETCD_HOSTS", "HTTP://a:1,https://b:2"),
            ("ETCD_CACERT", ca.as_str()),
            ("ETCD_TLS_CERT", cert.as_str()),
            ("ETCD_TLS_KEY", key.as_str()),
            ("ETCD_TLS_INMEMORY", "true"),
        ];
        let (endpoints, options) = read(env(&vars)).unwrap();
        assert_eq!(endpoints, ["https://a:1", "https://b:2"]);
        let tls = options.tls.unwrap();
        assert!(tls.ca.unwrap().ends_with("ca"));
        let (cert, key) = tls.identity.unwrap();
        assert!(cert.ends_with("cert") && key.ends_with("key"));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "from a file").unwrap();
        let (_, options) = read(env(&[("ETCD_CACERT", file.to_str().unwrap())])).unwrap();
        assert_eq!(options.tls.unwrap().ca.as_deref(), Some("from a file"));
    }

    #[test]
    fn a_bad_environment_is_an_error_that_shows_no_key() {
        let canary = STANDARD.encode("canary");
        let memory = ("ETCD_TLS_INMEMORY", "true");
        let bad: [&[(&str, &str)]; 8] = [
            &[("ETCD_CACERT", "/nonexistent")],
            &[("ETCD_USER", "me")],
            &[("SERENO_NAMESPACE", "a//b")],
            &[("ETCD_TLS_KEY", &canary), memory],
            &[("ETCD_TLS_CERT", "canary, not base64"), ("ETCD_TLS_KEY", "canary"), memory],
            &[("ETCD_TLS_CERT", "/nonexistent")],
            &[("ETCD_TLS_INMEMORY", "yes")],
            &[("ETCD_1_PORT_2379_TCP_ADDR", "h"), ("ETCD_1_PORT_2379_TCP_PORT", "0")],
        ];
        for vars in bad {
            let error = read(env(vars)).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("canary") && !shown.contains(&canary), "{shown}");
        }
    }
}
