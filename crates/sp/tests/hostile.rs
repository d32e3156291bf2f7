//! Peers that do wrong: each is closed and counted, and harms nobody else.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{LONG, Raw, quick, soon};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use sereno_sp::{
    Error, PeerEvent, Pub, Pull, Push, Refusal, Rep, Req, Respondent, SocketOptions, Sub, Surveyor,
};
use sereno_testkit::{ChildHost, child, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PUSH: u8 = 0x50;
const PULL: u8 = 0x51;
const SUB: u8 = 0x21;
const REQ: u8 = 0x30;
const REP: u8 = 0x31;
const SURVEYOR: u8 = 0x62;
const RESPONDENT: u8 = 0x63;

#[tokio::test]
async fn whoever_says_the_wrong_first_bytes_is_closed_and_counted_and_others_do_not_notice() {
    let pull = Pull::new();
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    let push = Push::new();
    push.dial(&address).unwrap();
    let mut events = pull.events();
    let hello = [0, b'S', b'P', 0, 0, PUSH, 0, 0];
    let changed = |index: usize, byte: u8| {
        let mut changed = hello;
        changed[index] = byte;
        changed.to_vec()
    };
    let then = |length: u64| [&hello[..], &length.to_be_bytes()].concat();
    let cases: [(Vec<u8>, Refusal); 11] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Refusal::NotSp),
        (vec![0; 64], Refusal::NotSp),
        (changed(5, PULL), Refusal::WrongProtocol),
        (changed(5, REQ), Refusal::WrongProtocol),
        (changed(4, 1), Refusal::WrongProtocol),
        (changed(3, 1), Refusal::Version),
        (changed(6, 1), Refusal::Reserved),
        (changed(7, 255), Refusal::Reserved),
        (then(1 << 63), Refusal::TooLarge),
        (then(u64::MAX), Refusal::TooLarge),
        (then(1024 * 1024 + 1), Refusal::TooLarge),
    ];
    for (number, (bytes, why)) in cases.into_iter().enumerate() {
        let before = pull.stats().refused(why);
        let mut raw = Raw::connect(&address).await;
        raw.send(&bytes).await;
        raw.ends().await;
        let counted = async || (pull.stats().refused(why) == before + 1).then_some(());
        eventually(LONG, "the count", counted).await;
        let body = format!("after {number}");
        push.send(body.clone()).await.unwrap();
        assert_eq!(soon("the good message", pull.recv()).await.unwrap(), body);
    }
    assert_eq!(pull.stats().refused_in_all(), 11);
    assert_eq!(pull.stats().connections, 1);
    assert_eq!(push.stats().dialled, 1, "the good connection was never lost");
    let (mut refused, mut ended) = (0, 0);
    while refused + ended < 11 {
        match soon("events", events.next()).await.unwrap().unwrap() {
            PeerEvent::Refused { .. } => refused += 1,
            PeerEvent::Disconnected { why: Some(Refusal::TooLarge), .. } => ended += 1,
            _ => {}
        }
    }
    assert_eq!((refused, ended), (8, 3));
}

#[tokio::test]
async fn on_a_unix_socket_a_message_that_begins_wrongly_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let pull = Pull::new();
    pull.listen(format!("ipc://{}", path.display())).await.unwrap();
    let mut raw = tokio::net::UnixStream::connect(&path).await.unwrap();
    // A good message, then one without its leading byte.
    raw.write_all(b"\0SP\0\0\x50\0\0\x01\0\0\0\0\0\0\0\x02hi\0\0\0\0\0\0\0\x02hi").await.unwrap();
    assert_eq!(soon("the good one", pull.recv()).await.unwrap(), "hi");
    let mut rest = Vec::new();
    let _ = soon("the end", raw.read_to_end(&mut rest)).await;
    eventually(LONG, "the count", async || (pull.stats().refused(Refusal::BadFrame) == 1).then_some(()))
        .await;
}

#[tokio::test]
async fn whoever_does_not_finish_its_hello_in_time_is_closed_and_keeps_nobody_out() {
    let pull = Pull::with_options(SocketOptions::default().handshake(Duration::from_millis(300)));
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut silent = Vec::new();
    for count in 0..20 {
        let mut raw = Raw::connect(&address).await;
        raw.send(&[0, b'S', b'P', 0, 0, PUSH, 0, 0][..count % 8]).await;
        silent.push(raw);
    }
    let push = Push::new();
    push.dial(&address).unwrap();
    push.send("good").await.unwrap();
    assert_eq!(soon("the good message", pull.recv()).await.unwrap(), "good");
    for raw in &mut silent {
        raw.ends().await;
    }
    let counted = async || (pull.stats().refused(Refusal::HandshakeTimeout) == 20).then_some(());
    eventually(LONG, "the count", counted).await;
    drop(Raw::connect(&address).await);
    let counted = async || (pull.stats().refused(Refusal::HandshakeBroken) == 1).then_some(());
    eventually(LONG, "the count", counted).await;
    assert_eq!(pull.stats().connections, 1);
}

#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_is_given_up_and_an_idle_connection_is_not() {
    let pull = Pull::with_options(SocketOptions::default().frame_time(Some(Duration::from_millis(300))));
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut idle = Raw::hello(&address, PUSH).await;
    idle.frame(b"before").await;
    let begun = Instant::now();
    let mut half = Raw::hello(&address, PUSH).await;
    half.send(&[0, 0, 0]).await;
    let mut dripping = Raw::hello(&address, PUSH).await;
    dripping.send(&1000_u64.to_be_bytes()).await;
    assert_eq!(soon("a whole message", pull.recv()).await.unwrap(), "before");
    // Every byte comes soon after the one before, and yet the message does not end.
    soon("the end of the one that drips", async {
        while dripping.stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    println!("given up after {:?}", begun.elapsed());
    half.ends().await;
    eventually(LONG, "the count", async || (pull.stats().refused(Refusal::Stalled) == 2).then_some(())).await;
    // By now it has been idle for longer than a message may take.
    assert!(begun.elapsed() >= Duration::from_millis(300));
    idle.frame(b"after").await;
    assert_eq!(soon("a whole message", pull.recv()).await.unwrap(), "after");
}

#[tokio::test]
async fn a_receiver_that_sends_is_disconnected() {
    let (publisher, push) = (Pub::new(), Push::new());
    let mut subscriber = Raw::hello(&publisher.listen("tcp://127.0.0.1:0").await.unwrap(), SUB).await;
    let mut puller = Raw::hello(&push.listen("tcp://127.0.0.1:0").await.unwrap(), PULL).await;
    for raw in [&mut subscriber, &mut puller] {
        raw.frame(b"subscribe to what?").await;
        raw.ends().await;
    }
    eventually(LONG, "the counts", async || {
        let counts = [publisher.stats(), push.stats()].map(|stats| stats.refused(Refusal::Unexpected));
        (counts == [1, 1]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_words_before_a_question_come_back_unchanged_and_too_many_or_too_few_end_the_connection() {
    let (rep, respondent) = (Rep::new(), Respondent::new());
    for (address, protocol) in [
        (rep.listen("tcp://127.0.0.1:0").await.unwrap(), REQ),
        (respondent.listen("tcp://127.0.0.1:0").await.unwrap(), SURVEYOR),
    ] {
        let mut good = Raw::hello(&address, protocol).await;
        for hops in [0, 1, 2, 8] {
            let mut words: Vec<u8> =
                (0..hops).flat_map(|hop| (hop * 0x0101_0101_u32).to_be_bytes()).collect();
            words.extend(0x8000_0007_u32.to_be_bytes());
            good.frame(&[&words[..], b"hi"].concat()).await;
            if protocol == REQ {
                let request = soon("a request", rep.recv()).await.unwrap();
                assert_eq!(request.body(), "hi");
                request.reply("answer").unwrap();
            } else {
                let question = soon("a question", respondent.recv()).await.unwrap();
                assert_eq!(question.body(), "hi");
                question.reply("answer").unwrap();
            }
            let answer = soon("the answer", good.read_frame()).await.unwrap();
            assert_eq!(answer, [&words[..], b"answer"].concat());
        }
        let too_many = [&[0; 36][..], &[0x80, 0, 0, 1], b"hi"].concat();
        for (bytes, why) in [
            (&b""[..], Refusal::BadHeader),
            (b"\x80\0\0", Refusal::BadHeader),
            (b"\0\0\0\x01", Refusal::BadHeader),
            (b"\0\0\0\x01hi", Refusal::BadHeader),
            (&too_many, Refusal::TooManyHops),
        ] {
            let mut bad = Raw::hello(&address, protocol).await;
            bad.frame(bytes).await;
            bad.ends().await;
            let stats = || if protocol == REQ { rep.stats() } else { respondent.stats() };
            eventually(LONG, "the count", async || (stats().refused(why) > 0).then_some(())).await;
        }
        let stats = if protocol == REQ { rep.stats() } else { respondent.stats() };
        eventually(LONG, "the good one alone", async || {
            let peers = if protocol == REQ { rep.peers() } else { respondent.peers() };
            (peers.len() == 1).then_some(())
        })
        .await;
        assert!(
            stats.refused(Refusal::TooManyHops) == 1 && stats.refused(Refusal::BadHeader) >= 1,
            "{stats:?}"
        );
    }
}

#[tokio::test]
async fn answers_to_nothing_are_ignored_and_answers_without_a_number_end_the_connection() {
    let (req, surveyor) = (Req::new(), Surveyor::new());
    let mut rep = Raw::hello(&req.listen("tcp://127.0.0.1:0").await.unwrap(), REP).await;
    let mut respondent = Raw::hello(&surveyor.listen("tcp://127.0.0.1:0").await.unwrap(), RESPONDENT).await;
    surveyor.connected(1).await.unwrap();
    let ticket = req.send("question").await.unwrap();
    let mut survey = surveyor.survey_for("question", LONG).unwrap();
    for raw in [&mut rep, &mut respondent] {
        let question = soon("the question", raw.read_frame()).await.unwrap();
        assert!(question[0] & 0x80 != 0 && &question[4..] == b"question");
        let mut wrong = question.clone();
        wrong[3] ^= 1;
        raw.frame(&wrong).await;
        raw.frame(&[&question[..4], b"right"].concat()).await;
        raw.frame(&[&question[..4], b"again"].concat()).await;
    }
    assert_eq!(soon("the answer", ticket).await.unwrap(), "right");
    assert_eq!(soon("the answer", survey.next()).await.unwrap().unwrap().body, "right");
    eventually(LONG, "the counts", async || {
        // A surveyor takes several answers of one respondent: there may be devices between.
        ((req.stats().late, surveyor.stats().late) == (2, 1)).then_some(())
    })
    .await;
    for raw in [&mut rep, &mut respondent] {
        raw.frame(b"\0\0\0\x01no number").await;
        raw.ends().await;
    }
    eventually(LONG, "the counts", async || {
        let counts = [req.stats(), surveyor.stats()].map(|stats| stats.refused(Refusal::BadHeader));
        (counts == [1, 1]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_answers_does_not_make_a_survey_longer_than_its_deadline() {
    let surveyor = Surveyor::new();
    let mut raw = Raw::hello(&surveyor.listen("tcp://127.0.0.1:0").await.unwrap(), RESPONDENT).await;
    surveyor.connected(1).await.unwrap();
    let mut survey = surveyor.survey_for("", Duration::from_millis(300)).unwrap();
    let question = soon("the question", raw.read_frame()).await.unwrap();
    let flood = tokio::spawn(async move {
        let answer = [&4_u64.to_be_bytes(), &question[..4]].concat().repeat(1000);
        while raw.stream.write_all(&answer).await.is_ok() {}
    });
    let mut count = 0_u64;
    let all = async {
        while let Some(answer) = survey.next().await {
            answer.unwrap();
            count += 1;
        }
    };
    soon("the end of the survey", all).await;
    println!("{count} answers in 300 ms");
    assert!(count > 0);
    flood.abort();
}

#[tokio::test]
async fn random_bytes_after_a_good_hello_break_no_socket() {
    let mut random = StdRng::seed_from_u64(20);
    let options = || quick().max_message(4096);
    macro_rules! bombard {
        ($socket:ident, $protocol:expr) => {{
            let socket = $socket::with_options(options());
            let address = socket.listen("tcp://127.0.0.1:0").await.unwrap();
            for _ in 0..40 {
                let mut raw = Raw::hello(&address, $protocol).await;
                let mut bytes = vec![0; random.random_range(0..3000)];
                random.fill_bytes(&mut bytes);
                if random.random() {
                    // A length that may pass, so that what follows is looked at.
                    let length = random.random_range(0..200_u64);
                    bytes.splice(0..0, length.to_be_bytes());
                }
                // It may be closed already.
                let _ = raw.stream.write_all(&bytes).await;
                let _ = raw.stream.shutdown().await;
                raw.ends().await;
            }
            eventually(LONG, "everybody's end", async || socket.peers().is_empty().then_some(())).await;
            assert!(socket.stats().refused_in_all() > 0);
            (socket, address)
        }};
    }
    let (pull, address) = bombard!(Pull, PUSH);
    let push = Push::new();
    push.dial(&address).unwrap();
    push.send("good").await.unwrap();
    let find = async { while pull.recv().await.unwrap() != "good" {} };
    soon("the good message", find).await;
    bombard!(Push, PULL);
    bombard!(Pub, SUB);
    bombard!(Sub, 0x20);
    bombard!(Surveyor, RESPONDENT);
    bombard!(Respondent, SURVEYOR);
    bombard!(Req, REP);
    let (rep, address) = bombard!(Rep, REQ);
    let req = Req::new();
    req.dial(&address).unwrap();
    let answering = async {
        loop {
            let request = rep.recv().await.unwrap();
            let body = request.body().clone();
            // Those who sent random bytes are gone.
            let _ = request.reply(body);
        }
    };
    tokio::select! {
        biased;
        answer = soon("an answer", req.request("good")) => assert_eq!(answer.unwrap(), "good"),
        () = answering => {}
    }
}

#[tokio::test]
async fn events_that_nobody_takes_are_bounded_and_their_number_is_told() {
    let pull = Pull::new();
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    let mut events = pull.events();
    for _ in 0..300 {
        let mut raw = Raw::connect(&address).await;
        raw.send(b"no hello").await;
        raw.ends().await;
    }
    eventually(LONG, "the counts", async || (pull.stats().refused_in_all() == 300).then_some(())).await;
    let mut told = 0;
    let missed = loop {
        match soon("an event", events.next()).await.unwrap() {
            Ok(PeerEvent::Refused { why: Refusal::NotSp, .. }) => told += 1,
            Ok(other) => panic!("{other:?}"),
            Err(Error::Missed { count }) => break count,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(told + missed, 300);
    assert!((1..300).contains(&told), "{told}");
    drop(Raw::connect(&address).await);
    let event = soon("the next event", events.next()).await.unwrap().unwrap();
    assert!(matches!(event, PeerEvent::Refused { why: Refusal::HandshakeBroken, .. }), "{event:?}");
}

#[tokio::test]
async fn a_listener_out_of_files_waits_and_goes_on() {
    let mut child = ChildHost::new("child_entry", "listener").spawn();
    let place = child.wait_for("listening", LONG).await;
    let address = place.parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(Raw::connect(&address).await);
    }
    child.wait_for("exhausted", LONG).await;
    drop(held);
    let push = Push::with_options(quick());
    push.dial(&address).unwrap();
    push.send("after all").await.unwrap();
    assert_eq!(child.wait_for("received", LONG).await, "after all");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "entry of child processes"]
async fn child_entry() {
    if child::role().as_deref() != Some("listener") {
        return; // Run by hand: nobody asked for a role.
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let pull = Pull::new();
    let address = pull.listen("tcp://127.0.0.1:0").await.unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), maximum }).unwrap();
    child::say(&format!("listening {address}"));
    // Until no file can be opened any more.
    eventually(LONG, "too many files", async || {
        TcpStream::connect("127.0.0.1:1").await.err()?.raw_os_error().filter(|code| *code == 24)
    })
    .await;
    child::say("exhausted");
    let body = soon("a message", pull.recv()).await.unwrap();
    child::say(&format!("received {}", String::from_utf8_lossy(&body)));
}
