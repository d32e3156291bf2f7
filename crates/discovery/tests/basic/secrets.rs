//! Passwords are seen by whom they are meant for, and nowhere else.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use crate::common_register::{Place, public, registered};
use sereno_discovery::{Error, Registry, Secret, Service};
use sereno_testkit::eventually;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const CANARY: &str = "canary-4711";

/// Everything that is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn no_password_is_in_any_debug_text_error_or_log_line() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let place = Place::shared("canary").await;
    let session = place.session(15).await;
    let registry = place.registry_on(&session);
    let host = public("h", CANARY);
    let mut registration = registered(&registry, "api", host.clone()).await;
    let mut changes = registration.changes();
    let news = changes.next().await.unwrap().unwrap();
    let credentials = registration.credentials().unwrap();
    assert_eq!(credentials.password.expose(), CANARY, "it is there for whom it is meant");

    // What is stored by others is no less a secret, nor what cannot be read.
    let mut shown = Vec::new();
    let extra = format!(r#"{{"name":"api","public":true,"password":"{CANARY}","token":"{CANARY}"}}"#);
    let broken = format!(r#"{{"name":"api","password":["{CANARY}"]}}"#);
    for record in [extra, broken, format!("{CANARY} {{"), "null".into()] {
        let revision = place.put_record("api", &record).await;
        let heard = eventually(crate::common_register::LONG, "the news", async || {
            registration.news().filter(|news| news.revision >= revision)
        });
        shown.push(format!("{:?}", heard.await));
    }
    assert!(place.oracle.delete(place.info_key("api")).await);
    let refused = registration.modify(|host| host.user(format!("a\n{CANARY}"))).await.unwrap_err();
    let too_large = registration.modify(|host| host.shard(CANARY.repeat(7000))).await.unwrap_err();
    let mut number = host.clone();
    number.ports.insert("http".into(), CANARY.into());
    let bad_port = registry.register("api", number).unwrap_err();
    for error in [refused, too_large, bad_port] {
        shown.push(format!("{error} {error:?} {:?}", std::error::Error::source(&error)));
    }
    shown.push(format!("{host:?} {host} {:?} {:?}", registration.host(), registration.news()));
    shown.push(format!("{news:?} {credentials:?} {changes:?} {registration:?} {registry:?}"));
    let secret = Secret::new(CANARY);
    let mut service = Service::new("api");
    service.password = CANARY.into();
    shown.push(format!("{secret:?} {secret} {service:?} {:?}", registration.status()));
    registration.stop().await.unwrap();
    while let Some(status) = registration.changed().await {
        shown.push(format!("{status:?}"));
    }
    shown.push(format!("{:?}", registration.update(host).await.unwrap_err()));
    let away = sereno_discovery::core::Client::lazy(["127.0.0.1:1"], Default::default()).unwrap();
    let options = place.options().start_within(std::time::Duration::from_millis(100));
    let never = Registry::open(&away, options).register("api", public("h", CANARY)).unwrap();
    let late = never.ready().await.unwrap_err();
    assert!(matches!(late, Error::StartUp { .. }), "{late:?}");
    shown.push(format!("{late:?} {late} {:?}", std::error::Error::source(&late)));
    session.close().await.unwrap();

    let text = shown.join("\n");
    assert!(!text.contains(CANARY), "{text}");
    assert!(text.contains("***"), "that there is one may be seen");
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("malformed"), "the log was heard: {logged}");
    assert!(!logged.contains(CANARY), "{logged}");
}
