use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread::{self, JoinHandle};

use super::*;

/// Answers one request with `answer` and returns what was asked.
fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        // To its end: closing a connection with something unread resets it.
        while !request.ends_with("\r\n\r\n") {
            let mut part = [0; 1024];
            let length = stream.read(&mut part).unwrap();
            assert_ne!(length, 0, "the request ends with an empty line");
            request += std::str::from_utf8(&part[..length]).unwrap();
        }
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    (endpoint, asked)
}

#[test]
fn a_choice_is_a_word_or_urls() {
    assert_eq!("docker".parse::<Choice>().unwrap(), Choice::Docker);
    assert_eq!("binary".parse::<Choice>().unwrap(), Choice::Binary);
    assert_eq!("embed".parse::<Choice>().unwrap(), Choice::Embed);
    let urls = "http://a:1/, https://b:2".parse::<Choice>().unwrap();
    assert_eq!(urls, Choice::Url(vec!["http://a:1".to_owned(), "https://b:2".to_owned()]));
    assert!("podman".parse::<Choice>().unwrap_err().to_string().contains("podman"));
    assert!("http://a:1,b:2".parse::<Choice>().is_err());
}

#[test]
fn a_url_has_etcds_port_unless_it_names_another() {
    for (url, canonical) in [
        ("http://localhost", "http://localhost:2379"),
        ("HTTP://localhost/", "http://localhost:2379"),
        ("https://[::1]", "https://[::1]:2379"),
        ("http://[::1]:99", "http://[::1]:99"),
    ] {
        assert_eq!(url.parse::<Choice>().unwrap(), Choice::Url(vec![canonical.to_owned()]), "{url}");
    }
    let bad = [
        "http://a:99999",
        "http://a:",
        "http://a:x",
        "http://a:0",
        "http://",
        "http://::1",
        "http://a/b",
        "ftp://a",
    ];
    for url in bad {
        assert!(url.parse::<Choice>().unwrap_err().to_string().contains(url), "{url}");
    }
    assert!(!"http://me:canary@a".parse::<Choice>().unwrap_err().to_string().contains("canary"));
}

#[test]
fn the_version_is_the_servers_own_word() {
    let (endpoint, asked) =
        server("HTTP/1.0 200 OK\r\n\r\n{\"etcdserver\":\"3.5.1\",\"etcdcluster\":\"3.5.0\"}");
    assert_eq!(http::version(&endpoint).unwrap(), "3.5.1");
    assert!(asked.join().unwrap().starts_with("GET /version HTTP/1.0\r\n"));
}

#[test]
fn a_server_that_is_no_etcd_is_an_error_that_shows_its_answer() {
    let (endpoint, _asked) = server("HTTP/1.0 200 OK\r\n\r\n{\"name\":\"other\"}");
    assert!(http::version(&endpoint).unwrap_err().to_string().contains("other"));
    let (endpoint, _asked) = server("HTTP/1.0 404 Not Found\r\n\r\n<html>");
    assert!(format!("{:#}", http::version(&endpoint).unwrap_err()).contains("404"));
}

#[test]
fn the_wait_ends_with_the_reason_why_the_server_is_gone() {
    let gone = || bail!("it ended with exit code 1");
    let error = http::wait_until_ready("http://127.0.0.1:1", START_LIMIT, gone).unwrap_err();
    assert_eq!(error.to_string(), "it ended with exit code 1");
}

#[test]
fn the_wait_is_bounded() {
    let error = http::wait_until_ready("http://127.0.0.1:1", Duration::ZERO, || Ok(())).unwrap_err();
    assert!(format!("{error:#}").contains("127.0.0.1:1"));
}

#[test]
fn nothing_answering_at_a_url_is_an_error_and_no_reason_to_look_elsewhere() {
    let error = provide(&Choice::Url(vec!["http://127.0.0.1:1".to_owned()]), Profile::Dev).unwrap_err();
    assert!(error.to_string().contains("no etcd answers at http://127.0.0.1:1"), "{error:#}");
}

#[test]
fn a_command_learns_the_endpoints_and_how_to_start_members() {
    let exported = |members| {
        let mut provided = Provided::running("http://a:1", members);
        provided.endpoints.push("http://b:2".to_owned());
        let mut command = Command::new("true");
        provided.export(&mut command);
        let read = |wanted: &str| {
            let (_, value) = command.get_envs().find(|(name, _)| *name == wanted).unwrap();
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        [ENDPOINTS, KIND, IMAGE, BINARY].map(|name| read(name).unwrap_or_default())
    };
    let urls = "http://a:1,http://b:2";
    let image = Members::Docker { image: "etcd:1".to_owned() };
    assert_eq!(exported(image), [urls, "docker", "etcd:1", ""]);
    let program = Members::Binary { path: "/bin/etcd".into() };
    assert_eq!(exported(program), [urls, "binary", "", "/bin/etcd"]);
    assert_eq!(exported(Members::Embed), [urls, "embed", "", ""]);
}

#[test]
fn a_program_that_ends_at_once_is_an_error_that_shows_what_it_wrote() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("etcd");
    std::fs::write(&program, "#!/bin/sh\necho 'no such flag' >&2\nexit 2\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = binary::find(Some(program.to_str().unwrap().to_owned())).unwrap();
    let error = format!("{:#}", binary::start(&found).unwrap_err());
    assert!(error.contains("no such flag") && error.contains("it ended with"), "{error}");
}

#[test]
fn a_named_program_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = binary::find(Some(folder.path().to_str().unwrap().to_owned())).unwrap_err();
    assert!(error.to_string().contains("not a program"));
}

#[test]
#[ignore = "needs etcd: cargo xtask test"]
fn a_server_is_gone_when_it_is_dropped() {
    // Of the kind that this test run is about.
    let choice = match variable(KIND) {
        Some(kind) => kind.parse().unwrap(),
        None => match provide(&Choice::Auto, Profile::Dev).unwrap().members {
            Members::Docker { .. } => Choice::Docker,
            Members::Binary { .. } => Choice::Binary,
            Members::Embed => Choice::Embed,
        },
    };
    let provided = provide(&choice, Profile::Dev).unwrap();
    let endpoint = provided.endpoints.first().unwrap().clone();
    assert_eq!(http::version(&endpoint).unwrap(), provided.version);
    drop(provided);
    assert!(http::version(&endpoint).is_err());
}
