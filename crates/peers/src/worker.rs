//! The task of a server: asks, judges and tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sereno_core::pace;
use sereno_sp::{Events, PeerEvent, Pub, Surveyor};

use crate::board::Board;
use crate::name;
use crate::options::ServerOptions;
use crate::roster::Roster;
use crate::stats::{ServerCounts, count};

/// What happens together is asked about and told together.
const GATHER: Duration = Duration::from_millis(5);
/// The least time between surveys that are made because connections come and go.
const HASTE: Duration = Duration::from_millis(100);

pub(crate) struct Worker {
    pub(crate) surveyor: Surveyor,
    pub(crate) publisher: Pub,
    /// The coming and going of clients.
    pub(crate) clients: Events,
    /// The coming and going of subscribers.
    pub(crate) subscribers: Events,
    pub(crate) options: ServerOptions,
    pub(crate) board: Arc<Board>,
    pub(crate) counts: Arc<ServerCounts>,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        let mut roster = Roster::new(&self.options);
        let mut telling = Telling::new(pace::now() + self.options.settle);
        while self.survey(&mut roster, &mut telling).await.is_some() {}
    }

    /// Makes one survey and stays with it until it is time for the next. `None` when a socket is closed.
    async fn survey(&mut self, roster: &mut Roster, telling: &mut Telling) -> Option<()> {
        // Before it is made: whoever comes in between is asked and need not answer.
        roster.begin(self.surveyor.peers().into_iter().map(|peer| peer.id));
        let mut survey = self.surveyor.survey_for(Bytes::new(), self.options.survey_time).ok()?;
        count(&self.counts.surveys);
        let mut round = Round::new(pace::now());
        loop {
            count(&self.counts.turns);
            let now = pace::now();
            if !round.judged && (roster.is_settled() || now >= round.judgement(&self.options)) {
                round.judged = true;
                if roster.judge() || telling.due.is_some() {
                    telling.by(now);
                }
            }
            if telling.due.is_some_and(|due| now >= due) {
                self.tell(roster, telling)?;
            }
            let next =
                if round.judged { round.next(&self.options, roster) } else { round.judgement(&self.options) };
            if round.judged && now >= next {
                return Some(());
            }
            tokio::select! {
                biased;
                answer = survey.next(), if round.open => match answer {
                    Some(Ok(answer)) => {
                        round.latest = pace::now();
                        match roster.answer(answer.peer, &answer.body) {
                            Ok(new) => {
                                count(&self.counts.answers);
                                if new {
                                    telling.by(round.latest + GATHER);
                                }
                            }
                            Err(fault) => self.counts.ignore(fault),
                        }
                    }
                    _ => round.open = false,
                },
                event = self.clients.next() => match event? {
                    Ok(PeerEvent::Disconnected { peer, .. }) => {
                        roster.lose(peer.id);
                        round.hint();
                    }
                    Ok(PeerEvent::Connected(_)) | Err(_) => round.hint(),
                    Ok(_) => {}
                },
                event = self.subscribers.next() => match event? {
                    // It has heard nothing yet. To the others this is old news.
                    Ok(PeerEvent::Connected(_)) | Err(_) => {
                        telling.again = true;
                        telling.by(pace::now() + GATHER);
                    }
                    Ok(_) => {}
                },
                () = pace::until(telling.due.map_or(next, |due| due.min(next))) => {}
            }
        }
    }
}

impl Worker {
    /// Publishes who is there, when that is news to somebody. `None` when the socket is closed.
    fn tell(&self, roster: &Roster, telling: &mut Telling) -> Option<()> {
        telling.due = None;
        let again = std::mem::take(&mut telling.again);
        let changed =
            !telling.told.as_ref().is_some_and(|told| roster.names().eq(told.iter().map(String::as_str)));
        if changed || again {
            self.publisher.try_send(name::join(roster.names())).ok()?;
            count(&self.counts.publications);
        }
        if changed {
            let names: Vec<String> = roster.names().map(str::to_owned).collect();
            tracing::debug!(peers = names.len(), "the peers have changed");
            self.board.post(names.clone());
            telling.told = Some(names);
        }
        Some(())
    }
}

/// What is to be published, and when.
struct Telling {
    /// Nothing is told before.
    from: Instant,
    /// When it is looked whether there is news.
    due: Option<Instant>,
    /// Somebody is there who has heard nothing.
    again: bool,
    told: Option<Vec<String>>,
}

impl Telling {
    fn new(from: Instant) -> Self {
        // That nobody is there is told as well.
        Self { from, due: Some(from), again: false, told: None }
    }

    fn by(&mut self, moment: Instant) {
        let moment = moment.max(self.from);
        self.due = Some(self.due.map_or(moment, |due| due.min(moment)));
    }
}

/// One survey, from its making to the next.
struct Round {
    began: Instant,
    /// When the latest answer came.
    latest: Instant,
    /// Whether answers are still to be had.
    open: bool,
    /// Whether those who were not heard have been told to have missed it.
    judged: bool,
    /// When the first connection came or was lost since.
    hint: Option<Instant>,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self { began: now, latest: now, open: true, judged: false, hint: None }
    }

    fn hint(&mut self) {
        self.hint.get_or_insert_with(pace::now);
    }

    /// When whoever has not answered has missed it, unless everybody has before.
    fn judgement(&self, options: &ServerOptions) -> Instant {
        (self.latest + options.recv_deadline).min(self.began + options.survey_time)
    }

    /// When the next is to be made.
    fn next(&self, options: &ServerOptions, roster: &Roster) -> Instant {
        let usual = if roster.is_doubtful() { options.in_doubt() } else { options.poll_time };
        let mut next = self.began + usual;
        if let Some(hint) = self.hint {
            let haste = HASTE.min(options.in_doubt());
            next = next.min((hint + GATHER.min(haste)).max(self.began + haste));
        }
        if roster.is_complete() {
            return next;
        }
        // Its answers would come to nothing when the next is made: there is time for them first.
        next.max(self.began + options.survey_time)
    }
}
