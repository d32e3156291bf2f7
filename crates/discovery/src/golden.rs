//! The stored forms as others write and read them: etcd-discovery in Go (versions 6 to 8) and in Ruby.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::fields::MAX_JSON;
use crate::host::{Host, Ports};
use crate::service::Service;

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../tests/golden/", $name, ".json")).as_slice()
    };
}

const UUID: &str = "a0a36ee0-5a5c-4cb1-8ef9-5f4e5f3a2f11-10.0.0.7";

fn ports(ports: &[(&str, &str)]) -> Ports {
    ports.iter().map(|(scheme, port)| ((*scheme).to_owned(), (*port).to_owned())).collect()
}

/// The ancestor's host as its decoder sees it: exact types, and here exact names, so that nothing else is written.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct GoHost {
    name: String,
    service_name: String,
    ports: Option<BTreeMap<String, String>>,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    private_hostname: String,
    #[serde(default)]
    private_ports: BTreeMap<String, String>,
    #[serde(default)]
    critical: bool,
    #[serde(default)]
    shard: String,
    #[serde(default)]
    uuid: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct GoService {
    name: String,
    critical: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    ports: BTreeMap<String, String>,
    #[serde(default)]
    public: bool,
}

impl GoHost {
    fn of(host: &Host) -> Self {
        Self {
            name: host.hostname.clone(),
            service_name: host.service_name.clone(),
            ports: (!host.ports.is_empty()).then(|| host.ports.clone()),
            user: host.user.clone(),
            password: host.password.expose().to_owned(),
            public: host.public,
            private_hostname: host.private_hostname.clone(),
            private_ports: host.private_ports.clone(),
            critical: host.critical,
            shard: host.shard.clone(),
            uuid: host.uuid.clone(),
        }
    }
}

impl GoService {
    fn of(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            critical: service.critical,
            hostname: service.hostname.clone(),
            user: service.user.clone(),
            password: service.password.expose().to_owned(),
            ports: service.ports.clone(),
            public: service.public,
        }
    }
}

/// As Go's `omitempty`: nothing empty is written but what is always there.
fn nothing_empty(json: &[u8], always: &[&str]) {
    let Value::Object(fields) = serde_json::from_slice(json).unwrap() else { panic!("an object") };
    for name in always {
        assert!(fields.contains_key(*name), "{name} is always there");
    }
    for (name, value) in fields.iter().filter(|(name, _)| !always.contains(&name.as_str())) {
        let empty = value.is_null() || value == "" || value == &Value::Bool(false);
        assert!(!empty, "{name} is written and empty");
    }
}

#[test]
fn hosts_that_others_wrote_are_read() {
    let v6 = Host::from_json(golden!("go_v6_host")).unwrap();
    let expected = Host {
        service_name: "web".into(),
        ports: ports(&[("http", "8080"), ("https", "8443")]),
        private_ports: ports(&[("http", "80")]),
        uuid: UUID.into(),
        ..Host::new("web-1.example.org")
            .user("user")
            .password("a&b<c>")
            .public(true)
            .private_hostname("10.0.0.7")
            .critical(true)
    };
    assert_eq!(v6, expected);
    let v8 = Host::from_json(golden!("go_v8_host")).unwrap();
    let bare = Host { service_name: "web".into(), ..Host::new("10.0.0.7").private_hostname("10.0.0.7") };
    assert_eq!(v8, Host { shard: "shard-1".into(), uuid: UUID.into(), ..bare.clone() });
    let ruby = Host::from_json(golden!("ruby_host")).unwrap();
    let http = ports(&[("http", "8080")]);
    let expected = Host { ports: http.clone(), private_ports: http.clone(), uuid: UUID.into(), ..bare };
    assert_eq!(ruby, expected);
    let mixed = Host::from_json(golden!("mixed_case_host")).unwrap();
    assert_eq!((mixed.user.as_str(), mixed.password.expose()), ("user", "pass"));
    assert_eq!((mixed.service_name.as_str(), &mixed.ports), ("web", &http));
    assert_eq!(mixed.extra.keys().collect::<Vec<_>>(), ["labels", "zone"]);
    let written = Host::from_json(&mixed.to_json()).unwrap();
    assert_eq!(written, mixed, "what is unknown survives");
    let refused = Host::from_json(golden!("numeric_ports_host")).unwrap_err();
    assert_eq!(refused, "ports has a value that is no text", "as the ancestor refuses it");
    serde_json::from_slice::<GoHost>(golden!("numeric_ports_host")).unwrap_err();
}

#[test]
fn records_that_others_wrote_are_read() {
    let go = Service::from_json("web", golden!("go_service")).unwrap();
    let expected = Service {
        critical: true,
        hostname: "web.example.org".into(),
        user: "user".into(),
        password: "a&b".into(),
        ports: ports(&[("http", "80"), ("https", "443")]),
        public: true,
        ..Service::new("web")
    };
    assert_eq!(go, expected);
    assert_eq!(Service::from_json("x", golden!("go_private_service")).unwrap(), Service::new("web"));
    let ruby = Service::from_json("web", golden!("ruby_service")).unwrap();
    let none = Service { user: String::new(), password: "".into(), critical: false, ..expected };
    assert_eq!(ruby, Service { ports: ports(&[("http", "80")]), ..none });
    let critical = Service::from_json("web", golden!("critical_only_service")).unwrap();
    assert_eq!(critical, Service { critical: true, ..Service::new("web") }, "named by its key");
}

#[test]
fn what_is_written_is_what_the_ancestor_writes() {
    for golden in [golden!("go_v6_host"), golden!("go_v8_host")] {
        let host = Host::from_json(golden).unwrap();
        let written = host.to_json();
        let ours: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(ours, serde_json::from_slice::<Value>(golden).unwrap(), "field for field");
        assert_eq!(serde_json::from_slice::<GoHost>(&written).unwrap(), GoHost::of(&host));
    }
    for golden in [golden!("go_service"), golden!("go_private_service")] {
        let service = Service::from_json("web", golden).unwrap();
        let written = service.to_json();
        let ours: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(ours, serde_json::from_slice::<Value>(golden).unwrap(), "field for field");
        assert_eq!(serde_json::from_slice::<GoService>(&written).unwrap(), GoService::of(&service));
    }
    // What is ours alone is there only when it is said, and is passed over by the ancestor.
    let host = Host::new("h").weight(2.0).draining(true);
    let written: Value = serde_json::from_slice(&host.to_json()).unwrap();
    assert_eq!((&written["weight"], &written["draining"]), (&2.0.into(), &true.into()));
}

#[test]
fn what_is_too_large_or_too_deep_is_refused_and_not_shown() {
    let secret = "canary".repeat(3);
    let large = format!(r#"{{"name":"{}"}}"#, secret.repeat(MAX_JSON));
    let deep = format!(r#"{{"name":"h","{secret}":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let many = (0..65).map(|n| format!(r#""{secret}{n}":"1""#)).collect::<Vec<_>>().join(",");
    let wide = format!(r#"{{"ports":{{{many}}}}}"#);
    let unknown = format!("{{{many}}}");
    for text in [large, deep, wide, unknown, format!("{secret} {{")] {
        let refused = [
            Host::from_json(text.as_bytes()).unwrap_err(),
            Service::from_json("s", text.as_bytes()).unwrap_err(),
        ];
        assert!(!refused.concat().contains("canary"), "{refused:?}");
    }
    let limit = format!(r#"{{"shard":"{}"}}"#, "x".repeat(MAX_JSON - 12));
    assert_eq!(limit.len(), MAX_JSON);
    Host::from_json(limit.as_bytes()).unwrap();
}

fn text() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{0,12}"
}

fn hostname() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9.:_-]{0,20}"
}

fn some_ports() -> impl Strategy<Value = Ports> {
    let port = (1..=u16::MAX).prop_map(|port| port.to_string());
    proptest::collection::btree_map("[a-z&<>\"]{1,8}", port, 0..4)
}

fn extra() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from)
    ];
    proptest::collection::btree_map("x-[a-zA-Z]{1,8}", value, 0..4)
}

prop_compose! {
    fn host()(
        names in (hostname(), hostname(), text(), text(), text()),
        credentials in (text(), ".*"),
        ports in (some_ports(), some_ports()),
        (public, critical, draining) in any::<(bool, bool, bool)>(),
        weight in 0..4000_u32,
        extra in extra(),
    ) -> Host {
        let (hostname, private_hostname, service_name, shard, uuid) = names;
        Host {
            hostname, private_hostname, service_name, shard, uuid,
            user: credentials.0,
            password: credentials.1.into(),
            ports: ports.0,
            private_ports: ports.1,
            public, critical, draining,
            weight: f64::from(weight) / 4.0,
            extra,
        }
    }
}

proptest! {
    #[test]
    fn a_host_is_read_as_it_was_written_by_us_and_by_the_ancestor(host in host()) {
        let json = host.to_json();
        prop_assert_eq!(Host::from_json(&json).unwrap(), host.clone());
        nothing_empty(&Host { extra: BTreeMap::new(), ..host.clone() }.to_json(), &["name", "service_name", "ports"]);
        let known = Host { weight: 1.0, draining: false, extra: BTreeMap::new(), ..host };
        prop_assert_eq!(serde_json::from_slice::<GoHost>(&known.to_json()).unwrap(), GoHost::of(&known));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_by_us_and_by_the_ancestor(host in host(), extra in extra()) {
        let host = Host { service_name: "svc".into(), ..host };
        let service = Service { extra, ..Service::of(&host) };
        prop_assert_eq!(Service::from_json("svc", &service.to_json()).unwrap(), service.clone());
        let known = Service { extra: BTreeMap::new(), ..service };
        nothing_empty(&known.to_json(), &["name", "critical"]);
        prop_assert_eq!(serde_json::from_slice::<GoService>(&known.to_json()).unwrap(), GoService::of(&known));
    }

    #[test]
    fn names_of_fields_are_read_in_any_case_and_null_is_what_is_not_set(host in host(), upper in any::<u16>(), null in any::<u16>()) {
        let host = Host { extra: BTreeMap::new(), ..host };
        let Value::Object(fields) = serde_json::from_slice(&host.to_json()).unwrap() else { panic!("an object") };
        let mut expected = host.clone();
        let mut odd = serde_json::Map::new();
        for (at, (name, value)) in fields.into_iter().enumerate() {
            let set = null >> at & 1 == 0 || name == "weight" || name == "draining";
            match name.as_str() {
                _ if set => {}
                "name" => expected.hostname.clear(),
                "service_name" => expected.service_name.clear(),
                "ports" => expected.ports.clear(),
                "user" => expected.user.clear(),
                "password" => expected.password = "".into(),
                "public" => expected.public = false,
                "private_hostname" => expected.private_hostname.clear(),
                "private_ports" => expected.private_ports.clear(),
                "critical" => expected.critical = false,
                "shard" => expected.shard.clear(),
                "uuid" => expected.uuid.clear(),
                other => panic!("{other}"),
            }
            let name = if upper >> at & 1 == 0 { name } else { name.to_ascii_uppercase() };
            odd.insert(name, if set { value } else { Value::Null });
        }
        let read = Host::from_json(Value::Object(odd).to_string().as_bytes()).unwrap();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Host::from_json(&bytes);
        let _ = Service::from_json("s", &bytes);
    }

    #[test]
    fn nor_does_a_stored_value_with_a_few_wrong_bytes(
        host in host(),
        wrong in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for mut json in [host.to_json(), Service::of(&host).to_json()] {
            for (at, byte) in &wrong {
                let at = at.index(json.len());
                json[at] = *byte;
            }
            if let Ok(read) = Host::from_json(&json) {
                prop_assert_eq!(Host::from_json(&read.to_json()).unwrap(), read, "what is read can be written");
            }
            if let Ok(read) = Service::from_json("s", &json) {
                prop_assert_eq!(Service::from_json("s", &read.to_json()).unwrap(), read);
            }
        }
    }
}
