//! The same inside TLS.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(not(feature = "tls"), allow(dead_code, unused_imports))]

mod common;

use common::{LONG, Raw, quick, soon};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sereno_sp::{Error, Pull, Push, Refusal, SocketOptions, TlsOptions};
use sereno_testkit::eventually;

/// An authority that signs certificates for tests.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn trusted(&self) -> TlsOptions {
        TlsOptions::default().ca(self.0.pem())
    }

    /// A chain and a key for a name.
    fn identity(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn listener(authority: &Authority, name: &str) -> TlsOptions {
    let (chain, key) = authority.identity(name);
    TlsOptions::default().identity(chain, key)
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_an_address_of_tls_is_an_error_that_says_so() {
    let pull = Pull::new();
    for error in [
        pull.listen("tls+tcp://127.0.0.1:0").await.unwrap_err(),
        pull.dial("tls+tcp://127.0.0.1:1").unwrap_err(),
    ] {
        assert!(matches!(error, Error::NeedsTls { .. }), "{error}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn messages_of_every_size_pass_through_tls() {
    let authority = Authority::new();
    let pull = Pull::with_options(quick().tls(listener(&authority, "127.0.0.1")));
    let push = Push::with_options(quick().tls(authority.trusted()));
    let address = pull.listen("tls+tcp://127.0.0.1:0").await.unwrap();
    assert!(address.to_string().starts_with("tls+tcp://127.0.0.1:"));
    push.dial(&address).unwrap();
    for size in [0, 1, 100, 16_384, 70_000, 1_000_000] {
        push.send(vec![7; size]).await.unwrap();
        assert_eq!(soon("it", pull.recv()).await.unwrap(), vec![7; size]);
    }
    for number in 0..2000_u32 {
        push.send(number.to_be_bytes().to_vec()).await.unwrap();
    }
    assert_eq!(push.close().await.undelivered, 0);
    for number in 0..2000_u32 {
        assert_eq!(soon("it", pull.recv()).await.unwrap(), number.to_be_bytes().as_slice());
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn whoever_is_not_who_it_should_be_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (chain, key) = authority.identity("client");
    let (foreign_chain, foreign_key) = other.identity("client");
    let server = |tls| Pull::with_options(quick().tls(tls));
    let mutual = || listener(&authority, "127.0.0.1").ca(authority.0.pem());
    for (what, pull, tls, works) in [
        ("the right authority", server(listener(&authority, "127.0.0.1")), authority.trusted(), true),
        ("another authority", server(listener(&other, "127.0.0.1")), authority.trusted(), false),
        ("another name", server(listener(&authority, "elsewhere")), authority.trusted(), false),
        (
            "a name that was asked for",
            server(listener(&authority, "elsewhere")),
            authority.trusted().server_name("elsewhere"),
            true,
        ),
        ("a client that shows itself", server(mutual()), authority.trusted().identity(chain, key), true),
        ("a client that does not", server(mutual()), authority.trusted(), false),
        (
            "a client of another authority",
            server(mutual()),
            authority.trusted().identity(foreign_chain, foreign_key),
            false,
        ),
    ] {
        let push = Push::with_options(quick().tls(tls));
        push.dial(pull.listen("tls+tcp://127.0.0.1:0").await.unwrap()).unwrap();
        push.send(what).await.unwrap();
        if works {
            assert_eq!(soon(what, pull.recv()).await.unwrap(), what);
            continue;
        }
        // By the one that finds the fault; in TLS 1.3 the other may see a connection that breaks.
        eventually(LONG, what, async || {
            let refused = [pull.stats(), push.stats()].map(|stats| stats.refused(Refusal::Tls));
            (refused.iter().sum::<u64>() > 0).then_some(())
        })
        .await;
        assert_eq!((pull.stats().accepted, pull.stats().messages_in), (0, 0), "{what}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn whoever_speaks_no_tls_is_refused_and_the_others_do_not_notice() {
    let authority = Authority::new();
    let pull = Pull::with_options(quick().tls(listener(&authority, "127.0.0.1")));
    let address = pull.listen("tls+tcp://127.0.0.1:0").await.unwrap();
    let plain = address.to_string().replace("tls+tcp", "tcp").parse().unwrap();
    let mut raw = Raw::connect(&plain).await;
    raw.send(b"\0SP\0\0\x50\0\0").await;
    raw.ends().await;
    eventually(LONG, "the count", async || (pull.stats().refused(Refusal::Tls) == 1).then_some(())).await;
    let push = Push::with_options(quick().tls(authority.trusted()));
    push.dial(&address).unwrap();
    push.send("good").await.unwrap();
    assert_eq!(soon("it", pull.recv()).await.unwrap(), "good");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn what_tls_lacks_is_told_at_once_and_no_key_is_ever_shown() {
    let authority = Authority::new();
    let (chain, key) = authority.identity("127.0.0.1");
    let broken = key.replace("PRIVATE", "PUBLIC");
    for (what, tls) in [
        ("nothing", TlsOptions::default()),
        ("no chain", TlsOptions::default().identity("", key.clone())),
        ("no key", TlsOptions::default().identity(chain.clone(), broken)),
        ("another's key", TlsOptions::default().identity(chain.clone(), authority.identity("x").1)),
    ] {
        let error = Pull::with_options(SocketOptions::default().tls(tls))
            .listen("tls+tcp://127.0.0.1:0")
            .await
            .unwrap_err();
        assert!(matches!(error, Error::BadTls { .. }), "{what}: {error}");
        println!("{what}: {error}");
    }
    for tls in [TlsOptions::default(), TlsOptions::default().ca("no PEM")] {
        let error =
            Push::with_options(SocketOptions::default().tls(tls)).dial("tls+tcp://127.0.0.1:1").unwrap_err();
        assert!(matches!(error, Error::BadTls { .. }), "{error}");
    }
    let options = SocketOptions::default().tls(TlsOptions::default().identity(chain, key.clone()));
    let shown = format!("{options:?}");
    assert!(shown.contains("hidden") && !shown.contains("PRIVATE"), "{shown}");
    let secret = key.lines().nth(1).unwrap();
    assert!(!shown.contains(secret) && !shown.contains(&format!("{:?}", &key.as_bytes()[..8])));
}
