//! The handle.

use std::fmt;

use sereno_core::{KeyError, Session};

use crate::error::{Error, Result};
use crate::gate::{Gate, Sight};
use crate::group::Group;
use crate::keys::Keys;
use crate::options::{CrashPolicy, WaitGroupOptions};
use crate::roster::Member;
use crate::worker::{self, Worker};

/// A wait group: some add, some report done, some wait until nothing is outstanding.
///
/// Cheap to clone. All handles of one name below one namespace, in all processes, are the same group. Dropping handles
/// changes nothing in etcd.
#[derive(Clone)]
pub struct WaitGroup {
    session: Session,
    options: WaitGroupOptions,
    group: Result<Group, KeyError>,
}

impl WaitGroup {
    /// The group of that name, with default options. No I/O; a name that cannot be a key is an error of the verbs.
    pub fn new(session: &Session, name: impl AsRef<[u8]>) -> Self {
        Self::with_options(session, name, WaitGroupOptions::default())
    }

    /// The group of that name. No I/O; a name that cannot be a key is an error of the verbs.
    pub fn with_options(session: &Session, name: impl AsRef<[u8]>, options: WaitGroupOptions) -> Self {
        let keys = Keys::new(session.client().namespace(), name.as_ref());
        let group = keys.map(|keys| Group::new(session, keys));
        Self { session: session.clone(), options, group }
    }

    /// Adds `n` to what is outstanding; what comes first after a release begins the next generation. One RPC, shared with
    /// whatever else this session does to the group at the moment.
    ///
    /// `add(0)` declares that there is nothing to do: it releases a group with nothing outstanding, so that those who wait
    /// for the first `add` do not wait for ever, and does nothing to any other.
    ///
    /// # Errors
    /// [`Error::Overflow`]; [`Error::Core`] as any write. An answer that is lost is found out about: what is reported
    /// applied was applied once.
    ///
    /// # Cancel safety
    /// Once polled, it goes on in the background when the future is dropped: it may have been applied or not.
    pub async fn add(&self, n: u64) -> Result<()> {
        let group = self.group()?;
        if n == 0 {
            return group.declare_empty().await;
        }
        group.add(n).await
    }

    /// Reports one done: [`WaitGroup::done_many`] of 1.
    ///
    /// # Errors
    /// As [`WaitGroup::done_many`].
    ///
    /// # Cancel safety
    /// As [`WaitGroup::done_many`].
    pub async fn done(&self) -> Result<()> {
        self.done_many(1).await
    }

    /// Takes `n` from what is outstanding. When nothing is left, and no worker either, this releases the group: everyone
    /// who waits returns. One or two RPCs, shared with whatever else this session does to the group at the moment, and repeated
    /// when other sessions are faster.
    ///
    /// # Errors
    /// [`Error::TooManyDone`] when less than `n` was outstanding: then nothing was applied, and no one else sees anything
    /// of it. [`Error::Core`] as any write. An answer that is lost is found out about: what is reported applied was
    /// applied once.
    ///
    /// # Cancel safety
    /// Once polled, it goes on in the background when the future is dropped: it may have been applied or not.
    pub async fn done_many(&self, n: u64) -> Result<()> {
        let group = self.group()?;
        if n == 0 {
            return Ok(());
        }
        group.done(n).await
    }

    /// What is outstanding: what was added and is not done, and the workers that have entered and are not done, dead ones
    /// included. Linearizable. One RPC.
    ///
    /// # Errors
    /// As any read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn count(&self) -> Result<u64> {
        Ok(self.group()?.read().await?.count())
    }

    /// The number of the present generation: 1 before the first release, and one more with each. Linearizable. One RPC.
    ///
    /// # Errors
    /// As any read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn generation(&self) -> Result<u64> {
        Ok(self.group()?.read().await?.generation)
    }

    /// The workers that have entered and are not done, by id, dead ones included. Linearizable. One RPC.
    ///
    /// # Errors
    /// As any read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn workers(&self) -> Result<Vec<Member>> {
        Ok(self.group()?.read().await?.roster.members())
    }

    /// Enters the group as a worker: it counts as outstanding until [`Worker::done`], and is noticed when it dies, that
    /// is when this process's session ends or the guard is dropped. `label` is what others are told about it: a host, a
    /// task. One RPC.
    ///
    /// # Errors
    /// As any write; [`core::Error::SessionLost`](sereno_core::Error::SessionLost) when the session is closed.
    ///
    /// # Cancel safety
    /// Once polled, it goes on in the background when the future is dropped; a worker that has entered nevertheless is
    /// then taken out again, as if it were done.
    pub async fn enter(&self, label: impl Into<String>) -> Result<Worker> {
        worker::enter(&self.session, self.group()?.clone(), label.into()).await
    }

    /// Takes a worker that died out of the group, as if it were done; `false` when there is no such worker (any more).
    /// If it was the last of what was outstanding, this releases the group. Two RPCs.
    ///
    /// # Errors
    /// [`Error::WorkerAlive`]: only the dead can be dismissed. [`Error::Core`] as any write.
    ///
    /// # Cancel safety
    /// Once polled, it goes on in the background when the future is dropped; calling it again is harmless.
    pub async fn dismiss(&self, id: &str) -> Result<bool> {
        self.group()?.dismiss(id).await
    }

    /// Waits until everything that is outstanding is done: until the group is released.
    ///
    /// | the group, when this is called | |
    /// |---|---|
    /// | has something outstanding | waits for the release of *this* generation, which no later `add` can undo or hide |
    /// | was released, and nothing was added since | returns at once |
    /// | was never added to | waits for the first `add`, then for its release; or returns at once: [`EmptyWait`](crate::EmptyWait) |
    ///
    /// One RPC, then a watch on a stream that all watches of the client share. There is no deadline, and etcd may be away
    /// meanwhile: wrap it into `tokio::time::timeout`. It only reads and needs no session, except to take out the dead
    /// under [`CrashPolicy::CountAsDone`].
    ///
    /// # Errors
    /// [`Error::WorkerDied`] under [`CrashPolicy::Fail`], at once when that happens or has happened;
    /// [`Error::Deleted`]; [`Error::Core`] as any read.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait at once and leaves nothing behind.
    pub async fn wait(&self) -> Result<()> {
        Box::pin(self.pass(Gate::new(self.options.empty))).await
    }

    /// Waits until the generation of that number has been released, whether or not anything is outstanding now. With [`WaitGroup::generation`] asked before adding, this waits for exactly that round of a group that is used
    /// again and again.
    ///
    /// # Errors
    /// As [`WaitGroup::wait`].
    ///
    /// # Cancel safety
    /// As [`WaitGroup::wait`].
    pub async fn wait_after(&self, generation: u64) -> Result<()> {
        Box::pin(self.pass(Gate::of(generation))).await
    }

    /// Removes the group, unless something is outstanding. `false` when there was none. Four RPCs, one more for each change of
    /// somebody else in between.
    ///
    /// The next `add` begins a new group of that name, whose generations may go on from those of before. One key that refuses
    /// late copies of earlier changes stays for ten minutes.
    /// Whoever waits is told [`Error::Deleted`].
    ///
    /// ```no_run
    /// # async fn f(nightly: &sereno_waitgroup::WaitGroup) -> sereno_waitgroup::Result<()> {
    /// nightly.wait().await?;
    /// nightly.remove().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InUse`]; [`Error::Core`] as any write.
    ///
    /// # Cancel safety
    /// Once polled, it goes on in the background when the future is dropped; calling it again is harmless.
    pub async fn remove(&self) -> Result<bool> {
        self.group()?.remove(false).await
    }

    /// As [`WaitGroup::remove`], whatever is outstanding. Workers that have entered are told
    /// [`Error::Dismissed`] when they report done.
    ///
    /// # Errors
    /// As [`WaitGroup::remove`], without [`Error::InUse`].
    ///
    /// # Cancel safety
    /// As [`WaitGroup::remove`].
    pub async fn remove_forced(&self) -> Result<bool> {
        self.group()?.remove(true).await
    }

    async fn pass(&self, mut gate: Gate) -> Result<()> {
        let group = self.group()?;
        let mut watcher = group.watch().await?;
        loop {
            let sight = watcher
                .wait(|view| match group.state(view) {
                    Ok(state) => gate.look(&state).map(Ok),
                    Err(error) => Some(Err(error)),
                })
                .await??;
            match (sight, self.options.crash) {
                (Sight::Released, _) => return Ok(()),
                (Sight::Deleted, _) => return Err(Error::Deleted),
                (Sight::Died(workers), CrashPolicy::Fail) => return Err(Error::WorkerDied { workers }),
                (Sight::Died(workers), CrashPolicy::CountAsDone) => {
                    group.bury(&workers).await?;
                    gate.bury(workers);
                }
            }
        }
    }

    fn group(&self) -> Result<&Group> {
        self.group.as_ref().map_err(|error| error.clone().into())
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup")
            .field("at", &self.group.as_ref().map(|group| group.keys().root()))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
