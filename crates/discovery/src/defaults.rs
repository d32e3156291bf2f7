//! What a host to be registered is given where it says nothing.

use sereno_core::chance;
use uuid::Builder;

use crate::error::{Error, Result};
use crate::fields::MAX_JSON;
use crate::host::Host;

/// Completes a host, and checks that every reader will read it. `machine` is asked for this machine's name if it is needed.
pub(crate) fn complete(mut host: Host, service: &str, machine: impl FnOnce() -> String) -> Result<Host> {
    if !host.public && host.private_hostname.is_empty() {
        host.private_hostname.clone_from(&host.hostname);
    }
    if host.private_hostname.is_empty() {
        host.private_hostname = machine();
    }
    if host.private_ports.is_empty() {
        host.private_ports.clone_from(&host.ports);
    }
    service.clone_into(&mut host.service_name);
    check(&host)?;
    Ok(host)
}

/// Whether every reader will read it.
pub(crate) fn check(host: &Host) -> Result<()> {
    host.valid()?;
    let json = host.to_json();
    if json.len() > MAX_JSON {
        let (what, size) = ("host", json.len());
        return Err(sereno_core::Error::TooLarge { what, size, limit: MAX_JSON }.into());
    }
    // The unknown fields are the caller's: they may be nested deeper than anybody reads.
    Host::from_json(&json).map_err(|reason| Error::InvalidHost { field: "extra", reason })?;
    Ok(())
}

/// This machine's name, as the environment says or else as the system does.
pub(crate) fn machine() -> String {
    match std::env::var("HOSTNAME") {
        Ok(name) if !name.is_empty() => name,
        _ => gethostname::gethostname().to_string_lossy().into_owned(),
    }
}

/// A name within the service that nobody else has: a random UUID and the private hostname.
pub(crate) fn uuid(host: &Host) -> String {
    let random = (u128::from(chance::number()) << 64) | u128::from(chance::number());
    let uuid = Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
    format!("{uuid}-{}", host.private_hostname)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(host: Host) -> Host {
        complete(host, "svc", || "machine".into()).unwrap()
    }

    #[test]
    fn a_private_host_is_known_privately_by_its_hostname_and_ports() {
        let host = completed(Host { service_name: "wrong".into(), ..Host::new("h").port("http", 80) });
        assert_eq!(host.private_hostname, "h");
        assert_eq!(host.private_ports, host.ports);
        assert_eq!(host.service_name, "svc");
    }

    #[test]
    fn a_host_without_a_private_name_has_the_machines() {
        assert_eq!(completed(Host::default()).private_hostname, "machine");
        let public = completed(Host::new("h.example.org").public(true));
        assert_eq!(public.private_hostname, "machine", "a public name is no private one");
        assert!(!machine().is_empty());
    }

    #[test]
    fn what_is_said_is_kept() {
        let host = completed(Host::new("h").private_hostname("p").port("a", 1).private_port("b", 2));
        assert_eq!(host.private_hostname, "p");
        assert_eq!(host.private_ports.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_no_reader_would_read_is_refused() {
        let refused = |host| complete(host, "svc", || "machine".into()).unwrap_err();
        let long = refused(Host::new("h").shard("x".repeat(MAX_JSON)));
        let too_large = matches!(
            long,
            Error::Core(sereno_core::Error::TooLarge { what: "host", size, limit: MAX_JSON }) if size > MAX_JSON
        );
        assert!(too_large, "{long:?}");
        let mut deep = serde_json::Value::Null;
        for _ in 0..200 {
            deep = serde_json::Value::Array(vec![deep]);
        }
        let extra = |name: &str, value| Host { extra: [(name.to_owned(), value)].into(), ..Host::new("h") };
        for host in [extra("deep", deep), extra("User", "me".into()), extra("ports", "none".into())] {
            let refused = refused(host);
            assert!(matches!(refused, Error::InvalidHost { field: "extra", .. }), "{refused:?}");
        }
        let refused = refused(Host::new("a b"));
        assert!(matches!(refused, Error::InvalidHost { field: "name", .. }), "{refused:?}");
    }

    #[test]
    fn a_name_is_a_random_uuid_and_the_private_hostname() {
        let host = completed(Host::new("h-1"));
        let (one, two) = (uuid(&host), uuid(&host));
        assert_ne!(one, two);
        let bare = one.strip_suffix("-h-1").unwrap();
        assert_eq!(uuid::Uuid::parse_str(bare).unwrap().get_version_num(), 4);
    }
}
