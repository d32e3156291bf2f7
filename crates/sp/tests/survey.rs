//! Surveys and their answers.

// Helpers are test code too; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use common::{LONG, places, quick, soon};
use sereno_sp::{Error, Respondent, Surveyor};
use sereno_testkit::eventually;

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
