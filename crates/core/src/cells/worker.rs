//! The task that writes for all handles of one session.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::books::Books;
use super::fast::fast_len;
use super::handle::CellsOptions;
use super::layout::{Layout, Mine};
use super::queue::{Queue, Request};
use crate::client::Client;
use crate::error::{Error, LostReason};
use crate::lease::Timer;
use crate::session::WeakSession;

pub(super) struct Worker {
    pub(super) session: WeakSession,
    pub(super) client: Client,
    pub(super) queue: Arc<Queue>,
    pub(super) layout: Arc<Layout>,
    pub(super) options: CellsOptions,
    /// In the name of its cells, so that no two workers of a session ever write the same one.
    pub(super) number: u64,
    /// Of the last transaction; never used twice, whatever became of it.
    pub(super) seq: u64,
    /// The number of the last epoch that etcd knows nothing of any more.
    pub(super) dead: u64,
    pub(super) mine: Option<Arc<Mine>>,
    /// The last reading, if nothing has happened since that could make it useless.
    pub(super) books: Option<Books>,
    /// A lease that was granted and is not in use yet.
    pub(super) spare: Option<Timer>,
    used: Instant,
    pub(super) sweep_at: Instant,
    pub(super) renew_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        session: WeakSession,
        queue: Arc<Queue>,
        layout: Arc<Layout>,
        options: CellsOptions,
    ) -> Self {
        let now = Instant::now();
        Self {
            client: session.client().clone(),
            number: session.serial(),
            session,
            queue,
            layout,
            renew_at: options.ttl.map(|_| now),
            options,
            seq: 0,
            dead: 0,
            mine: None,
            books: None,
            spare: None,
            used: now,
            sweep_at: now,
        }
    }

    /// Serves until the session closes or the last handle is gone; then counts its cell in.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        let mut backlog = Vec::new();
        while !closing.is_cancelled() {
            if backlog.is_empty() {
                let chore = self.next_chore();
                tokio::select! {
                    biased;
                    () = closing.cancelled() => break,
                    ready = self.queue.ready() => if !ready { break },
                    () = until(chore) => {}
                }
            }
            // Those who were just answered have their turn first: what they ask for next goes into the same transaction.
            tokio::task::yield_now().await;
            backlog.append(&mut self.queue.take());
            if !backlog.is_empty() {
                backlog = self.round(backlog).await;
                self.used = Instant::now();
            }
            self.chores().await;
        }
        let epoch = self.session.epoch().number();
        self.queue.close(Error::SessionLost { epoch, reason: LostReason::Closed });
        backlog.append(&mut self.queue.take());
        // Each round answers at least one, or ends at the deadline of all.
        while !backlog.is_empty() {
            backlog = self.round(backlog).await;
        }
        if let Err(error) = self.fold_own(self.client.deadline() / 4).await {
            tracing::debug!(%error, "folding a cell at the end");
        }
        if self.renew_at.is_some() {
            // What is left lives its full time from now on.
            self.renew().await;
        }
    }

    /// One transaction for as many as possible; gives back the rest.
    async fn round(&mut self, mut batch: Vec<Request>) -> Vec<Request> {
        self.fold_for(&mut batch).await;
        if batch.is_empty() {
            return batch;
        }
        let fast = fast_len(&batch);
        let exact = self.books.as_ref().is_some_and(Books::is_exact);
        if exact || fast == 0 {
            return self.exact(batch).await;
        }
        let mut rest = batch.split_off(fast);
        let mut back = self.fast(batch).await;
        back.append(&mut rest);
        back
    }

    /// Folds the cells of the dead where a request in the batch wants it. Those requests fail if that does.
    async fn fold_for(&mut self, batch: &mut Vec<Request>) {
        let wanting = batch.iter_mut().filter_map(|request| {
            let deadline = request.deadline;
            request.folds().map(|_| deadline)
        });
        let Some(until) = wanting.min() else { return };
        let folded = self.sweep_whole(until).await;
        for request in batch.extract_if(.., |request| request.folds().is_some() && folded.is_err()) {
            if let Err(error) = &folded {
                request.fail(error.clone());
            }
        }
        batch.iter_mut().filter_map(Request::folds).for_each(|folds| *folds = false);
    }

    /// When there is something to do without being asked.
    fn next_chore(&self) -> Option<Instant> {
        let idle = self.has_cell().then(|| self.used + self.options.idle);
        [idle, self.renew_at].into_iter().flatten().min()
    }

    fn has_cell(&self) -> bool {
        match (&self.mine, &self.books) {
            (Some(mine), Some(books)) => books.cell(&mine.name).is_some(),
            _ => false,
        }
    }

    async fn chores(&mut self) {
        let now = Instant::now();
        if self.has_cell() && now >= self.used + self.options.idle {
            if let Err(error) = self.fold_own(self.client.deadline() / 4).await {
                tracing::debug!(%error, "folding an idle cell");
            }
            self.used = Instant::now();
        } else if now >= self.sweep_at && now < self.used + self.options.idle {
            self.sweep().await;
        }
        if self.renew_at.is_some_and(|at| now >= at) {
            self.renew().await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.stopped();
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
