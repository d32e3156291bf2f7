//! The task behind a registration: makes it, carries out what is ordered, and ends it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sereno_core::{
    CancellationToken, Compare, Conflict, Key, Op, Presence, PresenceEvents, PresenceState, PresenceStatus,
    Session, Txn, pace,
};

use crate::board::{Board, Ended};
use crate::desk::{Desk, FOREVER, Rounds, passes};
use crate::error::{Error, Result};
use crate::follow::Follower;
use crate::home::Home;
use crate::host::Host;
use crate::record::{self, Seen, Why};
use crate::status::RegistrationState;

/// What somebody else takes over again and again is taken back no faster.
const CALM: Duration = Duration::from_secs(1);

/// What is to be registered.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) board: Arc<Board>,
    pub(crate) key: Key,
    pub(crate) info: Key,
    /// How long it may take at first, and until when that is.
    pub(crate) within: Duration,
    pub(crate) deadline: Instant,
}

/// Why the work ended.
enum End {
    Stopped,
    Closing,
    Displaced,
    Failed(Error),
}

/// Starts the task on a session.
pub(crate) fn start(task: Task, session: &Session) {
    // The task keeps the session open, as its registration would: it ends with that.
    let held = session.clone();
    session.spawn(|closing| async move {
        let ears = Ears { board: task.board.clone(), closing, presence: None, restored: 0 };
        Worker { task, session: held, ears }.run().await;
    });
}

/// Starts it as soon as there is a session.
pub(crate) async fn open(task: Task, home: Arc<Home>) {
    let opened = tokio::select! {
        biased;
        () = task.board.stop.cancelled() => return task.end(&End::Stopped, Ok(())),
        opened = home.open(task.left()) => opened,
    };
    match opened {
        Ok(session) => start(task, &session),
        Err(cause) if passes(&cause) && !cause.is_session_lost() => {
            task.end(&End::Failed(task.late(Some(cause))), Ok(()));
        }
        Err(error) => task.end(&End::Failed(error.into()), Ok(())),
    }
}

impl Task {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(pace::now())
    }

    fn late(&self, cause: Option<sereno_core::Error>) -> Error {
        Error::StartUp { within: self.within, cause }
    }

    fn end(&self, end: &End, stopped: Result<()>) {
        let (state, error) = match end {
            End::Failed(error) => {
                tracing::warn!(key = %self.key, %error, "a registration ended");
                (RegistrationState::Failed, error.clone())
            }
            End::Closing => {
                let (epoch, reason) = (self.board.status.borrow().epoch, sereno_core::LostReason::Closed);
                let lost = sereno_core::Error::SessionLost { epoch, reason };
                (RegistrationState::Stopped, lost.into())
            }
            End::Stopped | End::Displaced => (RegistrationState::Stopped, Error::Deregistered),
        };
        self.board.end(state, Ended { error, stopped });
    }
}

impl Drop for Task {
    /// Whatever becomes of it, those who wait are told. The first word counts: this one where the runtime was shut down.
    fn drop(&mut self) {
        let error = Error::Core(sereno_core::Error::Stopped);
        self.board.end(RegistrationState::Failed, Ended { stopped: Err(error.clone()), error });
    }
}

/// Hears what may interrupt the work, and passes on how the key stands.
struct Ears {
    board: Arc<Board>,
    closing: CancellationToken,
    presence: Option<PresenceEvents>,
    /// How often the key was restored before this presence.
    restored: u64,
}

impl Ears {
    /// Does some work until it is done or interrupted.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.board.stop.cancelled() => return Err(End::Stopped),
                () = self.closing.cancelled() => return Err(End::Closing),
                status = heard(&mut self.presence) => self.hear(status)?,
                done = work.as_mut() => return Ok(done),
            }
        }
    }

    /// The key is kept by this presence from now on.
    fn listen(&mut self, presence: &Presence) -> Result<(), End> {
        self.presence = Some(presence.events());
        self.hear(Some(presence.status()))
    }

    fn hear(&mut self, status: Option<PresenceStatus>) -> Result<(), End> {
        let Some(status) = status else { return Err(End::Closing) };
        let state = match status.state {
            PresenceState::Kept => RegistrationState::Kept,
            PresenceState::Left => return Err(End::Closing),
            _ => RegistrationState::Missing,
        };
        let displaced = status.state == PresenceState::Displaced;
        let restored = self.restored + status.restored + u64::from(displaced);
        self.board.status.send_if_modified(|told| {
            let before = *told;
            (told.state, told.epoch, told.revision) = (state, status.epoch, status.revision);
            told.restored = restored;
            before != *told
        });
        if displaced {
            (self.presence, self.restored) = (None, restored);
            return Err(End::Displaced);
        }
        Ok(())
    }
}

async fn heard(presence: &mut Option<PresenceEvents>) -> Option<PresenceStatus> {
    match presence {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

struct Worker {
    task: Task,
    session: Session,
    ears: Ears,
}

impl Worker {
    async fn run(mut self) {
        let (end, presence) = self.work().await;
        match presence {
            Some(presence) => self.leave(end, presence).await,
            // Perhaps it was written all the same; nobody waits for that.
            None => {
                self.task.end(&end, Ok(()));
                self.delete().await;
            }
        }
    }

    /// Makes the registration and keeps it, until the end.
    async fn work(&mut self) -> (End, Option<Presence>) {
        let seen = match self.publish().await {
            Ok(seen) => seen,
            Err(end) => return (end, None),
        };
        let mut desk = Desk::new(&self.task, self.session.client(), seen);
        let mut within = self.task.left();
        loop {
            let presence = match self.keep(within, &mut desk).await {
                Ok(presence) => presence,
                Err(end) => return (end, None),
            };
            let kept = pace::now();
            match self.follow(&mut desk, &presence).await {
                End::Displaced => {
                    tracing::warn!(key = %self.task.key, "somebody else wrote over a registered host");
                    if let Err(end) = self.ears.during(pace::until(kept + CALM)).await {
                        return (end, None);
                    }
                    within = FOREVER;
                }
                end => return (end, Some(presence)),
            }
        }
    }

    /// Writes the record for the first time.
    async fn publish(&mut self) -> Result<Seen, End> {
        let (client, board) = (self.session.client().clone(), self.task.board.clone());
        let info = self.task.info.clone();
        let rounds = Rounds::default();
        let write = client.patiently(self.task.left(), || async {
            let host = board.orders.borrow().host.clone();
            let written = record::write(&client, &info, &host, Why::Publish);
            rounds.take(written.await)
        });
        self.first(write, &rounds).await
    }

    /// Writes the host, which is somebody else's no longer.
    async fn keep(&mut self, within: Duration, desk: &mut Desk) -> Result<Presence, End> {
        let rounds = Rounds::default();
        let (session, key) = (self.session.clone(), self.task.key.clone());
        let board = self.task.board.clone();
        let keep = session.client().patiently(within, || async {
            let json = board.orders.borrow().host.to_json();
            let kept = session.keep(&key, json.clone(), Conflict::TakeOver).await;
            rounds.take(kept.map(|presence| (presence, json)))
        });
        let (presence, json) = self.first(keep, &rounds).await?;
        self.ears.listen(&presence)?;
        desk.kept(json);
        Ok(presence)
    }

    async fn first<T>(
        &mut self,
        work: impl Future<Output = Option<sereno_core::Result<T>>>,
        rounds: &Rounds,
    ) -> Result<T, End> {
        match self.ears.during(work).await? {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => Err(End::Failed(error.into())),
            None => Err(End::Failed(self.task.late(rounds.last()))),
        }
    }

    /// Carries out what is ordered and answers what happens to the record, until the end.
    async fn follow(&mut self, desk: &mut Desk, presence: &Presence) -> End {
        let mut orders = self.task.board.orders.subscribe();
        let mut follower = Follower::new(self.session.client(), &self.task.info);
        loop {
            orders.mark_unchanged();
            let turn = async {
                if let Some(view) = follower.view() {
                    desk.look(view);
                }
                desk.reconcile(presence).await?;
                tokio::select! {
                    biased;
                    _ = orders.changed() => Ok(()),
                    changed = follower.changed() => changed,
                }
            };
            match self.ears.during(turn).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return End::Failed(error.into()),
                Err(end) => return end,
            }
        }
    }

    /// Takes the host away: marked first, so that it is not taken for one that has died. Whoever waits is told within
    /// [`Session::time_to_close`].
    async fn leave(mut self, end: End, presence: Presence) {
        let within = self.session.time_to_close();
        let leaving = async {
            self.mark().await;
            presence.leave().await
        };
        let left = tokio::time::timeout(within, leaving).await;
        let stopped = match &left {
            Ok(Ok(())) => Ok(()),
            // It goes with the lease that is about to be revoked.
            _ if self.ears.closing.is_cancelled() => Ok(()),
            _ => Err(Error::NotYet { within }),
        };
        let deleted = stopped.is_ok();
        self.task.end(&end, stopped);
        if !deleted {
            // The presence may be busy writing still; not before it has ended.
            while heard(&mut self.ears.presence).await.is_some() {}
            self.delete().await;
        }
    }

    async fn mark(&self) {
        let epoch = self.session.epoch();
        let host = Host { draining: true, ..self.task.board.orders.borrow().host.clone() };
        let mark = Txn::new().when(Compare::owned_by(&self.task.key, &epoch)).then(Op::put_leased(
            &self.task.key,
            host.to_json(),
            &epoch,
        ));
        if let Err(error) = self.session.client().settle(&mark).await {
            tracing::debug!(%error, key = %self.task.key, "marking a host that leaves");
        }
    }

    /// Deletes the host however long etcd is away, as long as its lease may live.
    async fn delete(&self) {
        let (client, epoch) = (self.session.client(), self.session.epoch());
        let delete =
            Txn::new().when(Compare::owned_by(&self.task.key, &epoch)).then(Op::delete(&self.task.key));
        let deleted = client.persist(&epoch, || async {
            match client.settle(&delete).await {
                Err(error) if passes(&error) => None,
                _ => Some(()),
            }
        });
        tokio::select! {
            biased;
            () = self.ears.closing.cancelled() => {}
            _ = deleted => {}
        }
    }
}
