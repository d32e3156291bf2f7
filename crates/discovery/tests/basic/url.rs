//! URLs: the ancestor's forms, and what it does not escape.

use std::sync::Arc;

use proptest::prelude::*;
use sereno_discovery::{Error, Host, Hosts, Service};

/// The host of the ancestor's tests.
fn host() -> Host {
    Host::new("public.dev")
        .port("http", 10_000)
        .user("user")
        .password("password")
        .private_hostname("test-private.dev")
        .private_port("http", 20_000)
}

fn service() -> Service {
    let mut service = Service::new("test");
    service.public = true;
    service.hostname = "public.dev".into();
    service.user = "user".into();
    service.password = "password".into();
    service.ports.insert("http".into(), "10000".into());
    service
}

fn is_unknown(result: Result<String, Error>, name: &str) -> bool {
    matches!(result, Err(Error::UnknownScheme { scheme }) if scheme == name)
}

#[test]
fn a_url_has_credentials_if_there_are_any() {
    let with = host();
    let without = host().user("").password("");
    assert_eq!(with.url("http", "/path").unwrap(), "http://user:password@public.dev:10000/path");
    assert_eq!(without.url("http", "/path").unwrap(), "http://public.dev:10000/path");
    assert_eq!(
        with.private_url("http", "/path").unwrap(),
        "http://user:password@test-private.dev:20000/path"
    );
    assert_eq!(without.private_url("http", "/path").unwrap(), "http://test-private.dev:20000/path");
    assert_eq!(service().url("http", "/path").unwrap(), "http://user:password@public.dev:10000/path");
    assert_eq!(host().password("").url("http", "").unwrap(), "http://user@public.dev:10000");
}

#[test]
fn an_unknown_scheme_is_an_error() {
    assert!(is_unknown(host().url("htjp", "/path"), "htjp"));
    assert!(is_unknown(host().private_url("htjp", "/path"), "htjp"));
    assert!(is_unknown(service().url("htjp", "/path"), "htjp"));
}

#[test]
fn an_empty_scheme_is_http_then_https_then_an_error() {
    let expected = "http://user:password@public.dev:10000/path";
    assert_eq!(host().url("", "/path").unwrap(), expected);
    assert_eq!(host().port("https", 1).url("", "/path").unwrap(), expected);
    assert_eq!(host().private_url("", "/path").unwrap(), "http://user:password@test-private.dev:20000/path");
    let secure = Host::new("a").port("https", 443).port("ftp", 21);
    assert_eq!(secure.url("", "/").unwrap(), "https://a:443/");
    assert!(is_unknown(Host::new("a").port("ftp", 21).url("", "/"), ""));
    assert!(is_unknown(Host::new("a").private_hostname("b").private_url("", "/"), ""));
}

#[test]
fn an_empty_scheme_works_for_a_public_service_too() {
    let mut service = service();
    assert_eq!(service.url("", "/path").unwrap(), "http://user:password@public.dev:10000/path");
    service.ports = [("https".into(), "443".into())].into();
    assert_eq!(service.url("", "/path").unwrap(), "https://user:password@public.dev:443/path");
    assert!(is_unknown(Service::new("private").url("", "/path"), ""));
}

#[test]
fn without_a_private_hostname_the_private_url_is_the_public_one() {
    let host = host().private_hostname("");
    assert_eq!(host.private_url("http", "/path").unwrap(), "http://user:password@public.dev:10000/path");
}

#[test]
fn without_private_ports_the_public_ones_are_used() {
    let host = Host::new("public.dev").private_hostname("10.0.0.7").port("http", 80);
    assert_eq!(host.private_url("http", "/").unwrap(), "http://10.0.0.7:80/");
}

#[test]
fn a_url_without_a_hostname_is_an_error() {
    let nameless = Host::new("").port("http", 80);
    assert!(matches!(nameless.url("http", "/"), Err(Error::InvalidHost { field: "name", .. })));
    assert!(matches!(nameless.private_url("http", "/"), Err(Error::InvalidHost { field: "name", .. })));
}

#[test]
fn what_is_no_scheme_of_a_url_is_unknown_though_it_has_a_port() {
    for scheme in ["1http", "ht tp", "http://evil", "ht_tp", "-", "é", "http:"] {
        assert!(is_unknown(Host::new("a").port(scheme, 80).url(scheme, "/"), scheme), "{scheme}");
    }
    for scheme in ["h", "HTTP", "svn+ssh", "z39.50", "ms-x"] {
        assert_eq!(Host::new("a").port(scheme, 80).url(scheme, "/").unwrap(), format!("{scheme}://a:80/"));
    }
}

#[test]
fn a_port_that_is_no_number_is_as_good_as_none() {
    let mut host = Host::new("a");
    host.ports.insert("http".into(), "80/x@evil".into());
    host.ports.insert("https".into(), "443".into());
    assert!(is_unknown(host.url("http", "/"), "http"));
    assert_eq!(host.url("", "/").unwrap(), "https://a:443/");
}

#[test]
fn credentials_are_escaped() {
    let url = host().user("a@b:c/d").password("p?#% é~-._!").url("http", "/").unwrap();
    assert_eq!(url, "http://a%40b%3Ac%2Fd:p%3F%23%25%20%C3%A9~-._%21@public.dev:10000/");
}

#[test]
fn ipv6_addresses_stand_in_brackets() {
    let table = [
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("fe80::1%eth0", "[fe80::1%25eth0]"),
        ("[fe80::1%25eth0]", "[fe80::1%25eth0]"),
        ("10.0.0.7", "10.0.0.7"),
        ("a-b_c.example", "a-b_c.example"),
        ("no:address", "no%3Aaddress"),
        ("[x]", "%5Bx%5D"),
        ("bücher.example", "b%C3%BCcher.example"),
    ];
    for (hostname, expected) in table {
        let host = Host::new(hostname).port("http", 80);
        assert_eq!(host.url("http", "/").unwrap(), format!("http://{expected}:80/"));
    }
}

#[test]
fn paths_are_made_safe_and_not_escaped_twice() {
    let table = [
        ("", ""),
        ("/", "/"),
        ("a/b", "/a/b"),
        ("/a?b=c&d=/e?f", "/a?b=c&d=/e?f"),
        ("?q=1", "/?q=1"),
        ("/a b", "/a%20b"),
        ("/a%20b", "/a%20b"),
        ("/100%", "/100%25"),
        ("/%zz%4", "/%25zz%254"),
        ("/%e9", "/%e9"),
        ("/x\r\nHost: evil", "/x%0D%0AHost:%20evil"),
        ("/a#b", "/a%23b"),
        ("/<\">\\^`{|}[]\0", "/%3C%22%3E%5C%5E%60%7B%7C%7D%5B%5D%00"),
        ("/é", "/%C3%A9"),
        ("@evil/x", "/@evil/x"),
        ("//evil/x", "//evil/x"),
    ];
    for (path, expected) in table {
        assert_eq!(Host::new("a").port("http", 80).url("", path).unwrap(), format!("http://a:80{expected}"));
    }
}

#[test]
fn hosts_are_shown_as_a_list() {
    let hosts = [host().private_hostname(""), host()];
    assert_eq!(Hosts(&hosts).to_string(), "public.dev, test-private.dev");
    assert_eq!(Hosts(&hosts.map(Arc::new)).to_string(), "public.dev, test-private.dev");
    assert_eq!(Hosts::<Host>(&[]).to_string(), "");
}

proptest! {
    #[test]
    fn a_url_is_one_whatever_it_is_made_of(user in ".*", password in ".*", name in "[^/?#@\\s\\\\]+", path in ".*") {
        let host = Host::new(name).port("http", 80).user(user.clone()).password(password);
        let url = host.url("http", &path).unwrap();
        prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\^`{|}#".contains(&byte)), "{url}");
        let rest = url.strip_prefix("http://").unwrap();
        let (authority, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        prop_assert_eq!(path.is_empty(), tail.is_empty());
        prop_assert!(authority.ends_with(":80"), "{}", authority);
        prop_assert_eq!(authority.matches('@').count(), usize::from(!user.is_empty()));
    }

    #[test]
    fn making_a_path_safe_again_changes_nothing(path in ".*") {
        let host = Host::new("a").port("http", 80);
        let once = host.url("", &path).unwrap();
        let path = once.strip_prefix("http://a:80").unwrap();
        prop_assert_eq!(host.url("", path).unwrap(), once.clone());
    }
}
