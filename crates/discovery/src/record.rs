//! The record that all registrants of a service share: who may write what into it, and how nothing is lost doing so.
//!
//! ```text
//! found \ who        public registers   public follows     private registers   private follows
//! nothing            create             create             create              create
//! unreadable         replace            leave              leave               leave
//! of a private one   make it public     make it public     name and critical   leave
//! of a public one    replace            take over from it  leave               leave
//! ```
//!
//! Only registering and updating write over what a public registrant wrote, and only the creation of what is absent and
//! the return of what a private registrant took away are answers to what others did. So it comes to rest.

use sereno_core::{Client, Compare, Key, KeyValue, Op, Result, Step, Txn};

use crate::fields::MAX_JSON;
use crate::host::Host;
use crate::secret::Secret;
use crate::service::Service;

/// What is found in the record's place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Absent,
    /// And why.
    Malformed(String),
    Present(Service),
}

/// The record as of a revision.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) revision: i64,
    pub(crate) record: Record,
}

/// What makes a registrant look at the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It registers, or says something new of its service.
    Publish,
    /// Somebody else changed the record.
    Follow,
}

impl Record {
    pub(crate) fn read(service: &str, kv: Option<&KeyValue>) -> Self {
        match kv.map(|kv| Service::from_json(service, &kv.value)) {
            None => Self::Absent,
            Some(Ok(service)) => Self::Present(service),
            Some(Err(reason)) => Self::Malformed(reason),
        }
    }
}

/// What the registrant of `host` has to write in the place of what it found; `None` when it shall be left as it is.
pub(crate) fn decide(host: &Host, found: &Record, why: Why) -> Option<Service> {
    let ours = Service::of(host);
    let wanted = match found {
        Record::Absent => return Some(ours),
        Record::Malformed(_) => return (host.public && why == Why::Publish).then_some(ours),
        Record::Present(found) if host.public => match why {
            Why::Publish => Service { extra: found.extra.clone(), ..ours },
            Why::Follow if found.public => return None,
            Why::Follow => Service { critical: found.critical, extra: found.extra.clone(), ..ours },
        },
        Record::Present(found) if found.public || why == Why::Follow => return None,
        Record::Present(found) => Service { name: ours.name, critical: ours.critical, ..found.clone() },
    };
    (Record::Present(wanted.clone()) != *found).then_some(wanted)
}

/// The credentials that `host` has to take over from the record, if they are not its own already.
pub(crate) fn credentials(host: &Host, found: &Record) -> Option<(String, Secret)> {
    match found {
        Record::Present(service) if service.public && host.public => {
            let same = service.user == host.user && service.password == host.password;
            (!same).then(|| (service.user.clone(), service.password.clone()))
        }
        _ => None,
    }
}

/// Does what [`decide`] says, as one step with what was found: nothing that others write in between is lost. One RPC when
/// the record is absent, or to be left; two otherwise.
pub(crate) async fn write(client: &Client, key: &Key, host: &Host, why: Why) -> Result<Seen> {
    client.optimistic(|| round(client, key, host, why)).await
}

async fn round(client: &Client, key: &Key, host: &Host, why: Why) -> Result<Step<Seen>> {
    let ours = Service::of(host);
    let create =
        Txn::new().when(Compare::absent(key)).then(Op::put(key, checked(&ours)?)).otherwise(Op::get(key));
    let reply = client.settle(&create).await?.reply;
    if reply.succeeded {
        return Ok(Step::Done(Seen { revision: reply.revision, record: Record::Present(ours) }));
    }
    let Some(kv) = reply.entry(0) else { return Ok(Step::Conflict) };
    let record = Record::read(&host.service_name, Some(kv));
    let Some(wanted) = decide(host, &record, why) else {
        return Ok(Step::Done(Seen { revision: reply.revision, record }));
    };
    let replace =
        Txn::new().when(Compare::modified_at(key, kv.mod_revision)).then(Op::put(key, checked(&wanted)?));
    let reply = client.settle(&replace).await?.reply;
    // Not applied: either somebody was faster, or a copy of this one was; the next round sees which.
    Ok(match reply.succeeded {
        true => Step::Done(Seen { revision: reply.revision, record: Record::Present(wanted) }),
        false => Step::Conflict,
    })
}

/// The stored form, unless readers would refuse it for its size.
fn checked(service: &Service) -> Result<Vec<u8>> {
    let json = service.to_json();
    match json.len() {
        size if size > MAX_JSON => {
            Err(sereno_core::Error::TooLarge { what: "service record", size, limit: MAX_JSON })
        }
        _ => Ok(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(public: bool, user: &str) -> Host {
        let host = Host::new("h").port("http", 80).user(user).password("p").public(public);
        Host { service_name: "svc".into(), ..host }
    }

    fn present(json: &str) -> Record {
        Record::Present(Service::from_json("svc", json.as_bytes()).unwrap())
    }

    const PRIVATE: &str = r#"{"name":"svc","critical":true,"team":"core"}"#;
    const PUBLIC: &str = r#"{"name":"svc","critical":true,"hostname":"other","user":"u","password":"s","ports":{"http":"1"},"public":true,"team":"core"}"#;

    fn written(host: &Host, found: &Record, why: Why) -> Option<String> {
        decide(host, found, why).map(|service| String::from_utf8(service.to_json()).unwrap())
    }

    #[test]
    fn what_is_absent_is_created_by_whoever_is_there() {
        for why in [Why::Publish, Why::Follow] {
            for public in [true, false] {
                let host = host(public, "me");
                assert_eq!(decide(&host, &Record::Absent, why), Some(Service::of(&host)));
            }
        }
        let private = written(&host(false, "me"), &Record::Absent, Why::Publish).unwrap();
        assert_eq!(private, r#"{"critical":false,"name":"svc"}"#, "nothing of a private host's own");
    }

    #[test]
    fn what_cannot_be_read_is_left_alone_until_a_public_host_registers() {
        let bad = Record::Malformed("not JSON".into());
        assert_eq!(decide(&host(true, "me"), &bad, Why::Follow), None);
        assert_eq!(decide(&host(false, "me"), &bad, Why::Follow), None);
        assert_eq!(decide(&host(false, "me"), &bad, Why::Publish), None);
        let public = host(true, "me");
        assert_eq!(decide(&public, &bad, Why::Publish), Some(Service::of(&public)));
    }

    #[test]
    fn a_private_host_never_touches_a_public_record_and_refreshes_a_private_one() {
        let private = host(false, "me");
        assert_eq!(decide(&private, &present(PUBLIC), Why::Publish), None);
        assert_eq!(decide(&private, &present(PUBLIC), Why::Follow), None);
        assert_eq!(decide(&private, &present(PRIVATE), Why::Follow), None);
        let refreshed = written(&private, &present(PRIVATE), Why::Publish).unwrap();
        assert_eq!(refreshed, r#"{"critical":false,"name":"svc","team":"core"}"#);
        assert_eq!(decide(&private, &present(&refreshed), Why::Publish), None, "and then it is right");
    }

    #[test]
    fn a_public_host_writes_when_it_registers_and_takes_over_when_it_follows() {
        let public = host(true, "me");
        let replaced = written(&public, &present(PUBLIC), Why::Publish).unwrap();
        let expected = r#"{"critical":false,"hostname":"h","name":"svc","password":"p","ports":{"http":"80"},"public":true,"team":"core","user":"me"}"#;
        assert_eq!(replaced, expected);
        assert_eq!(decide(&public, &present(&replaced), Why::Publish), None, "nothing to say twice");
        assert_eq!(decide(&public, &present(PUBLIC), Why::Follow), None);
        assert_eq!(credentials(&public, &present(PUBLIC)), Some(("u".into(), "s".into())));
        assert_eq!(credentials(&public, &present(&replaced)), None);
    }

    #[test]
    fn a_record_made_private_under_public_hosts_is_made_public_again_and_keeps_what_is_said_of_the_service() {
        let mended = written(&host(true, "me"), &present(PRIVATE), Why::Follow).unwrap();
        let expected = r#"{"critical":true,"hostname":"h","name":"svc","password":"p","ports":{"http":"80"},"public":true,"team":"core","user":"me"}"#;
        assert_eq!(mended, expected);
        assert_eq!(decide(&host(true, "other"), &present(&mended), Why::Follow), None);
    }

    #[test]
    fn nobody_loses_credentials_to_what_is_absent_unreadable_or_private() {
        let public = host(true, "me");
        for record in [Record::Absent, Record::Malformed("x".into()), present(PRIVATE)] {
            assert_eq!(credentials(&public, &record), None);
        }
        assert_eq!(
            credentials(&host(false, "me"), &present(PUBLIC)),
            None,
            "nor does a private one gain any"
        );
    }

    /// Whatever is found, and whoever looks in whatever order: after each has looked a few times nobody writes any more.
    #[test]
    fn registrants_that_follow_each_other_come_to_rest() {
        let hosts = [host(true, "a"), host(false, "b"), host(true, "c"), host(false, "d")];
        let starts =
            [Record::Absent, Record::Malformed("x".into()), present(PRIVATE), present(PUBLIC), present("{}")];
        for start in starts {
            for order in 0..4_usize.pow(4) {
                let mut hosts = hosts.clone();
                let mut record = start.clone();
                let mut writes = 0;
                let who = (0..4).map(|place| (order / 4_usize.pow(place)) % 4);
                for at in who.chain(0..4).chain(0..4) {
                    let host = hosts.get_mut(at).unwrap();
                    if let Some(service) = decide(host, &record, Why::Follow) {
                        writes += 1;
                        record = Record::Present(service);
                    }
                    if let Some((user, password)) = credentials(host, &record) {
                        (host.user, host.password) = (user, password);
                    }
                }
                assert!(writes <= 2, "{writes} writes from {start:?} in order {order}");
                for host in &hosts {
                    assert_eq!(decide(host, &record, Why::Follow), None);
                    assert_eq!(credentials(host, &record), None);
                }
            }
        }
    }
}
