//! What sockets do when all is well.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use common::{LONG, places, quick, soon};
use sereno_sp::{
    Address, Error, PeerEvent, Pub, Pull, Push, Queue, Rep, Req, Respondent, SocketOptions, Sub, Surveyor,
};
use sereno_testkit::eventually;

#[tokio::test]
async fn what_is_pushed_is_pulled_in_order_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "order") {
        let (push, pull) = (Push::new(), Pull::new());
        pull.dial(push.listen(&place).await.unwrap()).unwrap();
        let sending = tokio::spawn({
            let push = push.clone();
            async move {
                for number in 0..10_000_u32 {
                    // From no bytes to many, so that every way to write is taken.
                    let size = if number % 1000 == 0 { 100_000 } else { number as usize % 300 };
                    let mut body = number.to_be_bytes().to_vec();
                    body.resize(4 + size, 7);
                    push.send(body).await.unwrap();
                }
            }
        });
        for number in 0..10_000_u32 {
            let body = soon("a message", pull.recv()).await.unwrap();
            assert_eq!(body[..4], number.to_be_bytes(), "{place}");
            assert!(body[4..].iter().all(|byte| *byte == 7));
        }
        sending.await.unwrap();
        assert_eq!(push.close().await.undelivered, 0);
        let stats = push.stats();
        assert_eq!((stats.messages_out, stats.dropped, stats.pending), (10_000, 0, 0));
        assert_eq!(pull.stats().messages_in, 10_000);
        assert_eq!(pull.stats().bytes_in, stats.bytes_out);
    }
}

#[tokio::test]
async fn messages_of_no_bytes_and_of_the_largest_size_arrive() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "sizes") {
        let options = SocketOptions::default().max_message(300_000);
        let (push, pull) = (Push::with_options(options.clone()), Pull::with_options(options));
        push.dial(pull.listen(&place).await.unwrap()).unwrap();
        for size in [0, 1, 65_535, 65_536, 300_000, 0] {
            push.send(vec![1; size]).await.unwrap();
            assert_eq!(soon("it", pull.recv()).await.unwrap().len(), size);
        }
        let error = push.send(vec![1; 300_001]).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { size: 300_001, limit: 300_000 }), "{error}");
    }
}

#[tokio::test]
async fn whoever_dials_before_anybody_listens_is_connected_later() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "early") {
        // A TCP port that is free, which the listener takes later.
        let place = match Push::new().listen(&place).await.unwrap() {
            Address::Inproc(name) => format!("inproc://{name}"),
            address => address.to_string(),
        };
        let push = Push::with_options(quick());
        push.dial(&place).unwrap();
        push.send("early").await.unwrap();
        eventually(LONG, "a failed attempt", async || (push.stats().dial_failures > 0).then_some(())).await;
        let pull = Pull::new();
        eventually(LONG, "the address", async || pull.listen(&place).await.ok()).await;
        assert_eq!(soon("the message", pull.recv()).await.unwrap(), "early");
    }
}

#[tokio::test]
async fn one_socket_listens_and_dials_several_addresses_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pull = Pull::with_options(quick());
    let (mut pushers, mut expected) = (Vec::new(), BTreeSet::new());
    for (index, place) in places(&folder, "several").into_iter().enumerate() {
        let (listening, dialling) = (Push::with_options(quick()), Push::with_options(quick()));
        dialling.dial(pull.listen(&place).await.unwrap()).unwrap();
        let other = place.replace("several", "several-other");
        pull.dial(listening.listen(&other).await.unwrap()).unwrap();
        for (kind, push) in [("listening", listening), ("dialling", dialling)] {
            let body = format!("{kind} {index}");
            push.send(body.clone()).await.unwrap();
            expected.insert(Bytes::from(body));
            pushers.push(push);
        }
    }
    let mut received = BTreeSet::new();
    for _ in 0..expected.len() {
        received.insert(soon("all", pull.recv()).await.unwrap());
    }
    assert_eq!(received, expected);
    assert_eq!(pull.addresses().len(), 4);
    assert_eq!(pull.peers().len(), 8);
    let peers = pull.peers();
    assert_eq!(peers.iter().filter(|peer| peer.dialled).count(), 4);
    assert!(matches!(pull.dial("inproc://several-other"), Err(Error::AlreadyUsed { .. })));
}

#[tokio::test]
async fn each_pushed_message_goes_to_one_puller_and_those_who_are_free_share_them() {
    let push = Push::new();
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    let pullers = [Pull::new(), Pull::new(), Pull::new()];
    for pull in &pullers {
        pull.dial(&address).unwrap();
    }
    push.connected(3).await.unwrap();
    // One at a time, so that all are free each time: they have their turns.
    let mut counts = [0; 3];
    for number in 0..30_u8 {
        push.send(vec![number]).await.unwrap();
        let receive = async {
            tokio::select! {
                biased;
                body = pullers[0].recv() => (0, body),
                body = pullers[1].recv() => (1, body),
                body = pullers[2].recv() => (2, body),
            }
        };
        let (who, body) = soon("it", receive).await;
        assert_eq!(body.unwrap(), vec![number]);
        counts[who] += 1;
    }
    assert_eq!(counts, [10, 10, 10]);
}

#[tokio::test]
async fn batches_are_sent_and_received_whole_and_in_order() {
    let (push, pull) = (Push::new(), Pull::with_options(SocketOptions::default().recv_queue(Queue::of(16))));
    pull.dial(push.listen("inproc://batches").await.unwrap()).unwrap();
    let mut batch: VecDeque<Bytes> =
        (0..5000_u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    let sending = tokio::spawn(async move {
        push.send_all(&mut batch).await.unwrap();
        assert!(batch.is_empty());
        push
    });
    let mut received = Vec::new();
    while received.len() < 5000 {
        let before = received.len();
        let count = soon("some", pull.recv_many(&mut received, 100)).await.unwrap();
        assert!((1..=100).contains(&count) && received.len() == before + count);
    }
    let expected: Vec<_> = (0..5000_u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    assert_eq!(received, expected);
    sending.await.unwrap();
}

#[tokio::test]
async fn subscribers_get_what_begins_as_they_want() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "topics") {
        let publisher = Pub::new();
        let address = publisher.listen(&place).await.unwrap();
        let (all, some, none) = (Sub::new(), Sub::new(), Sub::new());
        assert!(all.subscribe(""));
        assert!(some.subscribe("a/") && some.subscribe("b") && !some.subscribe("b"));
        for subscriber in [&all, &some, &none] {
            subscriber.dial(&address).unwrap();
        }
        publisher.connected(3).await.unwrap();
        let sent = ["a", "a/1", "", "b", "c", "bb", "xa/", "a/2"];
        for body in sent {
            publisher.send(body).await.unwrap();
        }
        for expected in sent {
            assert_eq!(soon("all", all.recv()).await.unwrap(), expected);
        }
        for expected in ["a/1", "b", "bb", "a/2"] {
            assert_eq!(soon("some", some.recv()).await.unwrap(), expected);
        }
        let came = || none.stats().messages_in == sent.len() as u64;
        eventually(LONG, "everything at the one who wants nothing", async || came().then_some(())).await;
        assert_eq!(none.try_recv().unwrap(), None);
        assert_eq!(some.try_recv().unwrap(), None);
    }
}

#[tokio::test]
async fn after_unsubscribing_nothing_more_of_that_prefix_is_received() {
    let (publisher, subscriber) = (Pub::new(), Sub::new());
    subscriber.subscribe("a");
    subscriber.subscribe("b");
    subscriber.dial(publisher.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    publisher.connected(1).await.unwrap();
    for body in ["a1", "b1", "a2", "b2"] {
        publisher.send(body).await.unwrap();
    }
    assert_eq!(soon("the first", subscriber.recv()).await.unwrap(), "a1");
    eventually(LONG, "the rest", async || (subscriber.stats().messages_in == 4).then_some(())).await;
    assert!(subscriber.unsubscribe("a") && !subscriber.unsubscribe("a"));
    publisher.send("a3").await.unwrap();
    publisher.send("b3").await.unwrap();
    for expected in ["b1", "b2", "b3"] {
        assert_eq!(soon("b", subscriber.recv()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_survey_gets_the_answer_of_everybody_and_ends_at_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "survey") {
        let surveyor = Surveyor::new();
        let address = surveyor.listen(&place).await.unwrap();
        for index in 0..5 {
            let respondent = Respondent::new();
            respondent.dial(&address).unwrap();
            tokio::spawn(async move {
                while let Ok(question) = respondent.recv().await {
                    let answer = format!("{index}: {}", String::from_utf8_lossy(question.body()));
                    question.reply(answer).unwrap();
                }
            });
        }
        surveyor.connected(5).await.unwrap();
        for round in ["first", "second"] {
            let mut survey = surveyor.survey_for(round, LONG).unwrap();
            assert_eq!(survey.asked(), 5);
            let mut answers = BTreeMap::new();
            while answers.len() < 5 {
                let answer = soon("an answer", survey.next()).await.unwrap().unwrap();
                assert!(answers.insert(answer.peer, answer.body).is_none());
            }
            let answers: BTreeSet<_> = answers.into_values().collect();
            assert_eq!(answers, (0..5).map(|index| Bytes::from(format!("{index}: {round}"))).collect());
        }
        let mut survey = surveyor.survey_for("", Duration::from_millis(300)).unwrap();
        let mut count = 0;
        while let Some(answer) = soon("the end", survey.next()).await {
            answer.unwrap();
            count += 1;
        }
        println!("{count} of 5 answers in 300 ms");
        assert!(soon("nothing", survey.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_new_survey_ends_the_one_before_and_late_answers_are_counted() {
    let (surveyor, respondent) = (Surveyor::new(), Respondent::new());
    respondent.dial(surveyor.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
    surveyor.connected(1).await.unwrap();
    let mut first = surveyor.survey_for("first", LONG).unwrap();
    let late = soon("the first", respondent.recv()).await.unwrap();
    let mut second = surveyor.survey_for("second", LONG).unwrap();
    assert!(matches!(soon("its end", first.next()).await, Some(Err(Error::Superseded))));
    assert!(soon("its end", first.next()).await.is_none());
    late.reply("late").unwrap();
    soon("the second", respondent.recv()).await.unwrap().reply("in time").unwrap();
    assert_eq!(soon("an answer", second.next()).await.unwrap().unwrap().body, "in time");
    assert_eq!(surveyor.stats().late, 1);
    drop(first);
    assert!(surveyor.survey("third").is_ok(), "the first being dropped is of no matter");
}

#[tokio::test]
async fn a_respondent_serves_several_surveyors_at_once_in_any_order() {
    let respondent = Respondent::new();
    let surveyors = [Surveyor::new(), Surveyor::new()];
    for surveyor in &surveyors {
        respondent.dial(surveyor.listen("tcp://127.0.0.1:0").await.unwrap()).unwrap();
        surveyor.connected(1).await.unwrap();
    }
    let mut surveys =
        [surveyors[0].survey_for("0", LONG).unwrap(), surveyors[1].survey_for("1", LONG).unwrap()];
    let one = soon("a question", respondent.recv()).await.unwrap();
    let other = soon("a question", respondent.recv()).await.unwrap();
    assert_ne!(one.peer(), other.peer());
    for question in [other, one] {
        let body = question.body().clone();
        question.reply(body).unwrap();
    }
    for (index, survey) in surveys.iter_mut().enumerate() {
        assert_eq!(soon("the answer", survey.next()).await.unwrap().unwrap().body, index.to_string());
    }
}

#[tokio::test]
async fn requests_are_answered_in_any_order_and_each_gets_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "requests") {
        let (req, rep) = (Req::new(), Rep::new());
        rep.dial(req.listen(&place).await.unwrap()).unwrap();
        let mut tickets = Vec::new();
        for number in 0..10_u8 {
            tickets.push(soon("room", req.send(vec![number])).await.unwrap());
        }
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.push(soon("a request", rep.recv()).await.unwrap());
        }
        for request in requests.into_iter().rev() {
            let body = [request.body().as_ref(), b" answered"].concat();
            request.reply(body).unwrap();
        }
        for (number, ticket) in (0..10_u8).zip(tickets) {
            let answer = soon("an answer", ticket).await.unwrap();
            assert_eq!(answer, [&[number][..], b" answered"].concat());
        }
        assert_eq!(req.stats().pending, 0);
    }
}

#[tokio::test]
async fn a_flush_waits_for_what_was_posted_before_it_and_for_no_more() {
    let (req, rep) = (Req::new(), Rep::new());
    rep.dial(req.listen("inproc://flush").await.unwrap()).unwrap();
    req.flush().await.unwrap();
    req.post("1").await.unwrap();
    req.post("2").await.unwrap();
    let (one, two) = (rep.recv().await.unwrap(), rep.recv().await.unwrap());
    let flush = req.flush();
    tokio::pin!(flush);
    let unfinished = |context: &mut std::task::Context<'_>| {
        std::task::Poll::Ready(flush.as_mut().poll(context).is_pending())
    };
    assert!(std::future::poll_fn(unfinished).await);
    req.post("3").await.unwrap();
    let three = soon("the third", rep.recv()).await.unwrap();
    two.reply("").unwrap();
    one.reply("").unwrap();
    soon("the flush", flush).await.unwrap();
    assert_eq!(req.stats().pending, 1, "the third is still open");
    drop(three);
}

#[tokio::test]
async fn no_connection_has_more_unanswered_requests_than_the_window_and_the_least_busy_comes_first() {
    let req = Req::with_options(SocketOptions::default().window(4));
    let address = req.listen("tcp://127.0.0.1:0").await.unwrap();
    let busy = Rep::new();
    busy.dial(&address).unwrap();
    req.connected(1).await.unwrap();
    for _ in 0..3 {
        req.post("").await.unwrap();
    }
    let free = Rep::new();
    free.dial(&address).unwrap();
    req.connected(2).await.unwrap();
    for _ in 0..10 {
        req.post("").await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(soon("its window", busy.recv()).await.unwrap());
        held.push(soon("its window", free.recv()).await.unwrap());
    }
    let more =
        tokio::time::timeout(Duration::from_millis(100), async { tokio::join!(busy.recv(), free.recv()) })
            .await;
    assert!(more.is_err() && busy.try_recv().unwrap().is_none() && free.try_recv().unwrap().is_none());
    assert_eq!(req.stats().pending, 13);
    // An answer makes room for one, just where it came from.
    held.pop().unwrap().reply("").unwrap();
    soon("one more", free.recv()).await.unwrap();
    assert!(busy.try_recv().unwrap().is_none());
}

#[tokio::test]
async fn events_tell_who_comes_and_goes() {
    let (push, pull) = (Push::with_options(quick()), Pull::new());
    let mut events = pull.events();
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    push.dial(&address).unwrap();
    let PeerEvent::Connected(peer) = soon("an event", events.next()).await.unwrap().unwrap() else {
        panic!("not that")
    };
    assert!(peer.address.starts_with("tcp://127.0.0.1:") && peer.address != address.to_string(), "{peer:?}");
    assert_eq!((&peer.endpoint, peer.dialled), (&address, false));
    assert_eq!(pull.peers(), std::slice::from_ref(&peer));
    assert!(push.disconnect(&address).unwrap() && !push.disconnect(&address).unwrap());
    let event = soon("an event", events.next()).await.unwrap().unwrap();
    assert_eq!(event, PeerEvent::Disconnected { peer, why: None });
    assert_eq!(pull.stats().connections, 0);
    pull.close().await;
    assert!(soon("the end", events.next()).await.is_none());
    assert!(soon("the end", pull.events().next()).await.is_none());
}

#[tokio::test]
async fn an_address_is_told_with_the_port_that_the_system_chose_over_ipv4_and_ipv6_and_by_name() {
    for place in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://localhost:0", "tcp://*:0"] {
        let pull = Pull::new();
        let address = match pull.listen(place).await {
            Ok(address) => address,
            // Not every machine has IPv6.
            Err(Error::Listen { source, .. }) if place.contains("::1") && source.raw_os_error().is_some() => {
                println!("no IPv6 here: {source}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let Address::Tcp { port, .. } = address else { panic!("{address}") };
        assert_ne!(port, 0);
        assert_eq!(pull.addresses(), std::slice::from_ref(&address));
        let push = Push::new();
        let name =
            if place.contains("localhost") { format!("tcp://localhost:{port}") } else { address.to_string() };
        push.dial(name.replace("0.0.0.0", "127.0.0.1")).unwrap();
        push.send(place).await.unwrap();
        assert_eq!(soon("it", pull.recv()).await.unwrap(), place);
        let error = Push::new().listen(&address).await.unwrap_err();
        assert!(matches!(error, Error::AddressInUse { .. }) && error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn the_old_survey_protocol_is_spoken_on_request_and_only_with_its_own_kind() {
    let old = || quick().dialect(sereno_sp::Dialect::Mangos2015);
    let surveyor = Surveyor::with_options(old());
    let address = surveyor.listen("tcp://127.0.0.1:0").await.unwrap();
    let modern = Respondent::with_options(quick());
    modern.dial(&address).unwrap();
    let respondent = Respondent::with_options(old());
    respondent.dial(&address).unwrap();
    surveyor.connected(1).await.unwrap();
    for round in 0..3 {
        let mut survey = surveyor.survey_for(format!("question {round}"), LONG).unwrap();
        let question = soon("a question", respondent.recv()).await.unwrap();
        assert_eq!(question.body(), format!("question {round}").as_bytes());
        question.reply("answer").unwrap();
        assert_eq!(soon("an answer", survey.next()).await.unwrap().unwrap().body, "answer");
    }
    eventually(LONG, "the refusal", async || {
        (surveyor.stats().refused(sereno_sp::Refusal::WrongProtocol) > 0).then_some(())
    })
    .await;
    assert_eq!(modern.stats().dialled, 0);
}
