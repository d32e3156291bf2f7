//! Registrations under faults that a seed decides: no etcd is needed. `cargo xtask test --seed <n>` plays one again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sereno_discovery::core::{Client, Compare, Key, Namespace, Op, Session, Txn, chance};
use sereno_discovery::{Error, Host, Registration, RegistrationState, Registry};
use sereno_testkit::embed::{Call, Fault};
use sereno_testkit::{Seeds, Stage};

const SERVICE: &str = "api";

async fn idle(most: u64) {
    tokio::time::sleep(Duration::from_millis(chance::number() % most)).await;
}

fn info() -> Key {
    Namespace::new("/services_infos").unwrap().root().key(SERVICE).unwrap()
}

async fn record(client: &Client) -> Option<Value> {
    let kv = client.get(&info()).await.ok()??;
    serde_json::from_slice(&kv.value).ok()
}

/// The stored hosts by uuid.
async fn hosts(client: &Client) -> Option<BTreeMap<String, Value>> {
    let prefix = Namespace::new("/services").unwrap().prefix(SERVICE).unwrap();
    let read = client.range(&prefix).await.ok()?;
    let host = |value: &[u8]| {
        let json: Value = serde_json::from_slice(value).unwrap();
        (json["uuid"].as_str().unwrap().to_owned(), json)
    };
    Some(read.entries.iter().map(|kv| host(&kv.value)).collect())
}

fn public(name: &str, round: u64) -> Host {
    let host = Host::new(format!("{name}.example.org")).private_hostname(name).port("http", 80).public(true);
    host.user(format!("user of {name}")).password(format!("{name} in round {round}"))
}

fn private(name: &str) -> Host {
    Host::new(name).port("http", 80)
}

/// What may come of an order while there are faults.
fn passing(error: &Error) {
    let refused = matches!(error, Error::NotYet { .. }) || error.is_retryable() || error.is_outcome_unknown();
    assert!(refused, "{error:?}");
}

/// Registers, updates, drains, stops, and says at the end what is registered still.
async fn process(registry: Registry, name: String) -> Vec<Registration> {
    let mut kept: Vec<Registration> = Vec::new();
    let mut stopped = Vec::new();
    for round in 0..5 {
        idle(1500).await;
        let at = chance::below(kept.len());
        match chance::below(8) {
            0 | 1 if kept.len() < 2 => {
                kept.push(registry.register(SERVICE, public(&format!("{name}-{round}"), round)).unwrap());
            }
            2 if kept.len() < 2 => {
                kept.push(registry.register(SERVICE, private(&format!("{name}-{round}"))).unwrap());
            }
            3 if !kept.is_empty() => {
                let gone = kept.remove(at);
                if let Err(error) = gone.stop().await {
                    passing(&error);
                }
                stopped.push(gone);
            }
            4 if !kept.is_empty() => drop(kept.remove(at)),
            5 if !kept.is_empty() => {
                let order =
                    if chance::below(2) == 0 { kept[at].drain().await } else { kept[at].resume().await };
                if let Err(error) = order {
                    passing(&error);
                }
            }
            6 if !kept.is_empty() => {
                // Dropped somewhere in between: done all the same.
                let update = kept[at].modify(|host| host.weight(f64::from(chance::below(8) as u32)));
                let _ = tokio::time::timeout(Duration::from_millis(chance::number() % 300), update).await;
            }
            _ if !kept.is_empty() => {
                let password = format!("{name} again in round {round}");
                if let Err(error) = kept[at].modify(|host| host.password(password)).await {
                    passing(&error);
                }
            }
            _ => kept.push(registry.register(SERVICE, public(&name, round)).unwrap()),
        }
    }
    for registration in &stopped {
        assert_eq!(registration.status().state, RegistrationState::Stopped);
    }
    kept
}

/// What others do to the record: another library, an operator.
async fn meddle(client: Client) {
    for round in 0..3 {
        idle(2500).await;
        let write = match chance::below(4) {
            0 => Op::put(&info(), "{ half"),
            1 => Op::put(&info(), r#"{"name":"api","critical":true,"team":"core"}"#),
            2 => Op::put(
                &info(),
                format!(r#"{{"Name":"api","public":true,"User":"op","password":"op {round}"}}"#),
            ),
            _ => Op::delete(&info()),
        };
        let txn = Txn::new().when(Compare::absent(&info().clone())).otherwise(write);
        let _ = client.commit(&txn).await;
    }
}

/// Everything is as it shall be, and stays so without another write.
async fn settled(stage: &Stage, client: &Client, registrations: &[&Registration]) {
    let in_step = async || {
        if !registrations.iter().all(|registration| registration.status().state == RegistrationState::Kept) {
            return None;
        }
        let record = record(client).await?;
        let stored = hosts(client).await?;
        let wanted: BTreeMap<String, Value> = registrations
            .iter()
            .map(|registration| (registration.uuid().to_owned(), json(&registration.host())))
            .collect();
        let (user, password) = (field(&record, "user"), field(&record, "password"));
        for registration in registrations.iter().filter(|registration| registration.host().public) {
            let (host, credentials) = (registration.host(), registration.credentials().ok()?);
            let same = user == credentials.user && password == credentials.password.expose();
            if !same || host.user != credentials.user || host.password != credentials.password {
                return None;
            }
        }
        (stored == wanted).then_some(())
    };
    stage
        .soon("everything to be as it is registered", async {
            while in_step().await.is_none() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    in_step().await.expect("it stays so");
}

fn readable(record: &[u8]) -> bool {
    serde_json::from_slice::<Value>(record).is_ok()
}

/// A text of a record, whatever the case of its name.
fn field<'a>(record: &'a Value, name: &str) -> &'a str {
    let mut fields = record.as_object().unwrap().iter();
    let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.and_then(|(_, value)| value.as_str()).unwrap_or("")
}

/// The stored form of what is registered here.
fn json(host: &Host) -> Value {
    let mut json = serde_json::json!({
        "name": host.hostname, "service_name": host.service_name, "ports": host.ports, "uuid": host.uuid,
        "private_hostname": host.private_hostname, "private_ports": host.private_ports,
    });
    for (name, text) in [("user", host.user.as_str()), ("password", host.password.expose())] {
        if !text.is_empty() {
            json[name] = text.into();
        }
    }
    for (name, flag) in [("public", host.public), ("draining", host.draining)] {
        if flag {
            json[name] = true.into();
        }
    }
    if host.weight != 1.0 {
        json["weight"] = host.weight.into();
    }
    json
}

async fn many_register(stage: &Stage) {
    let mut sessions: Vec<Session> = Vec::new();
    for _ in 0..3 {
        // A call that hangs does so for 5 s.
        let client = stage.client(Duration::from_secs(5));
        sessions.push(stage.session_of(&client, Duration::from_secs(5)).await);
    }
    let follower = Registry::new(&sessions[0]).register(SERVICE, public("first", 0)).unwrap();
    stage.soon("the first", follower.ready()).await.unwrap();
    stage.disturb();
    let meddling = tokio::spawn(meddle(stage.client(Duration::from_secs(5))));
    let processes: Vec<_> = sessions
        .iter()
        .enumerate()
        .map(|(n, session)| tokio::spawn(process(Registry::new(session), format!("h{n}"))))
        .collect();
    let mut registrations = vec![follower];
    for process in processes {
        registrations.extend(process.await.unwrap());
    }
    meddling.await.unwrap();
    stage.calm();
    let client = stage.client(Duration::from_secs(5));
    for registration in &registrations {
        stage.soon("a registration to be ready", registration.ready()).await.unwrap();
    }
    // One that cannot be read is left as it is, with everyone keeping what he had last, until somebody speaks.
    if !stage.until("a record", async || client.get(&info()).await.ok()?.map(|kv| readable(&kv.value))).await
    {
        registrations[0].modify(|host| host.password("spoken")).await.unwrap();
    }
    settled(stage, &client, &registrations.iter().collect::<Vec<_>>()).await;

    // At rest: not one write more, whatever there was before.
    let revision = stage.server().status().revision;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(stage.server().status().revision, revision, "they go on writing");

    // Orders are carried out at once now.
    let last = &registrations[0];
    last.modify(|host| host.password("last")).await.unwrap();
    settled(stage, &client, &registrations.iter().collect::<Vec<_>>()).await;
    assert_eq!(record(&client).await.unwrap()["password"], "last");
    for registration in registrations {
        registration.stop().await.unwrap();
    }
    assert_eq!(hosts(&client).await.unwrap(), BTreeMap::new());
    assert_eq!(record(&client).await.unwrap()["public"], true, "the record stays");
    for session in &sessions {
        session.close().await.unwrap();
    }
}

#[test]
fn what_is_stored_is_what_is_registered_and_public_hosts_share_their_credentials() {
    let test = "what_is_stored_is_what_is_registered_and_public_hosts_share_their_credentials";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 110).run(many_register);
}

#[test]
fn a_seed_is_played_the_same_again() {
    Seeds::new(env!("CARGO_PKG_NAME"), "a_seed_is_played_the_same_again", 5).repeat(many_register);
}

#[test]
fn a_lease_that_ended_brings_the_latest_host_back_under_the_next_epoch() {
    let test = "a_lease_that_ended_brings_the_latest_host_back_under_the_next_epoch";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 10).run(async |stage| {
        let session = stage.session().await;
        let registration = Registry::new(&session).register(SERVICE, public("h", 0)).unwrap();
        registration.ready().await.unwrap();
        registration.modify(|host| host.password("new")).await.unwrap();
        registration.drain().await.unwrap();
        for round in 1..=3 {
            assert_eq!(stage.faults().expire_all_sessions(), 1);
            let restored = async || {
                let status = registration.status();
                (status.state == RegistrationState::Kept && status.restored == round).then_some(status.epoch)
            };
            assert_eq!(stage.until("the host to be restored", restored).await, round + 1);
            let stored = hosts(session.client()).await.unwrap();
            assert_eq!(stored[registration.uuid()]["password"], "new");
            assert_eq!(stored[registration.uuid()]["draining"], true);
        }
    });
}

#[test]
fn what_is_ordered_while_etcd_is_away_is_what_comes_back() {
    let test = "what_is_ordered_while_etcd_is_away_is_what_comes_back";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 10).run(async |stage| {
        // The lease runs out while nobody answers.
        let session = stage.session().await;
        let registry = Registry::new(&session);
        let (plain, shared) =
            (registry.register(SERVICE, private("plain")), registry.register(SERVICE, public("h", 0)));
        let (plain, shared) = (plain.unwrap(), shared.unwrap());
        plain.ready().await.unwrap();
        shared.ready().await.unwrap();
        let other = stage.client(Duration::from_secs(5));
        let prefix = Namespace::new("/services").unwrap().prefix(SERVICE).unwrap();
        let before = stage.server().status().revision;
        stage.server().kill().await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        let away = Duration::from_millis(chance::number() % 3000);
        let orders = async {
            tokio::time::timeout(away, plain.drain()).await.ok();
            tokio::time::timeout(away, shared.modify(|host| host.password("meanwhile"))).await.ok();
            tokio::time::timeout(away, shared.drain()).await.ok();
        };
        orders.await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.server().revive().await.unwrap();
        let mut watcher = stage.until("etcd to be back", async || other.watch(&prefix).await.ok()).await;
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        loop {
            for kv in watcher.view().iter() {
                let host: Value = serde_json::from_slice(&kv.value).unwrap();
                // On the former leases they may be there still for a moment; a new one is what was ordered.
                if kv.create_revision > before {
                    assert_eq!(host["draining"], true, "a host came back as it was before");
                }
                seen.insert(host["uuid"].as_str().unwrap().to_owned(), host);
            }
            if seen.len() == 2 && seen.values().all(|host| host["draining"] == true) {
                break;
            }
            stage.soon("the hosts", watcher.next()).await.unwrap().unwrap();
        }
        settled(stage, &other, &[&plain, &shared]).await;
        assert_eq!(record(&other).await.unwrap()["password"], "meanwhile");
    });
}

#[test]
fn a_compaction_while_the_watches_are_cut_costs_a_few_requests_and_no_more() {
    let test = "a_compaction_while_the_watches_are_cut_costs_a_few_requests_and_no_more";
    Seeds::new(env!("CARGO_PKG_NAME"), test, 5).run(async |stage| {
        let session = stage.session().await;
        let registry = Registry::new(&session);
        let (still, busy) =
            (registry.register(SERVICE, public("still", 0)), registry.register("b", public("busy", 0)));
        let (still, busy) = (still.unwrap(), busy.unwrap());
        still.ready().await.unwrap();
        busy.ready().await.unwrap();
        for n in 0..5 {
            busy.modify(|host| host.password(format!("{n}"))).await.unwrap();
        }
        stage.faults().compact();
        // A fault that does nothing but be counted.
        stage.faults().next(Call::Any, 10_000, Fault::Delay(Duration::ZERO));
        stage.faults().cut_streams();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let requests = stage.faults().injected().len();
        // 27 keepalives, one or two questions a second on the watch stream, and the watches made again are among them. Watches that
        // are made again without end are thousands.
        assert!((1..150).contains(&requests), "{requests} requests for two hosts that were not touched");
        assert_eq!(still.status().restored + busy.status().restored, 0);
    });
}
