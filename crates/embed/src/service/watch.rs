//! The Watch service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::sync::{Notify, mpsc};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::ending::Ending;
use crate::engine::{Engine, wants_leader};
use crate::faults::{Call, Passage};
use crate::store::{Span, StreamId, Wanted};
use crate::wire::Link;

/// How many answers wait for a slow client. What else there is for it stays in the history.
const QUEUE: usize = 16;
/// Numbers of `FilterType` on the wire.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

pub(crate) struct Watch {
    pub(crate) engine: Arc<Engine>,
    pub(crate) progress_interval: Duration,
}

#[async_trait]
impl PbWatchService for Watch {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<PbWatchResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, mut queue) = mpsc::channel(QUEUE);
        let (id, signal) = self.engine.with(|state, _| state.open_stream());
        let stream = WatchStream {
            ending: self.engine.ending(wants_leader(&request)),
            engine: Arc::clone(&self.engine),
            id,
            signal,
            answers,
            wants_leader: wants_leader(&request),
            link: request.extensions().get::<Link>().cloned(),
            progress_interval: self.progress_interval,
        };
        tokio::spawn(stream.run(request.into_inner()));
        // etcd sends nothing, not even headers, before there is an answer: who waits for them before asking waits for ever.
        let first = queue.recv().await;
        let rest = futures_util::stream::unfold(queue, |mut queue| async move {
            let answer = queue.recv().await?;
            Some((answer, queue))
        });
        let queue = futures_util::stream::iter(first).chain(rest);
        Ok(Response::new(Box::pin(queue)))
    }
}

/// One stream, with all watches on it. Runs until the client has gone or the server ends it.
struct WatchStream {
    engine: Arc<Engine>,
    id: StreamId,
    signal: Arc<Notify>,
    answers: mpsc::Sender<Result<PbWatchResponse, Status>>,
    ending: Ending,
    wants_leader: bool,
    link: Option<Link>,
    progress_interval: Duration,
}

/// The client has gone.
struct Gone;

impl WatchStream {
    async fn run(mut self, requests: Streaming<PbWatchRequest>) {
        let mut ending = self.ending.clone();
        let answers = self.answers.clone();
        let why = tokio::select! {
            biased;
            why = ending.wait() => Some(why),
            () = answers.closed() => None,
            result = self.serve(requests) => match result {
                Ok(()) | Err(Stop::Gone) => None,
                Err(Stop::Because(status)) => Some(status),
            },
        };
        self.engine.with(|state, _| state.close_stream(self.id));
        if let Some(status) = why {
            // With a full queue the client learns of it when it has read what is before: or it has gone.
            tokio::select! {
                _ = answers.send(Err(status)) => {}
                () = answers.closed() => {}
            }
        }
    }

    async fn serve(&mut self, mut requests: Streaming<PbWatchRequest>) -> Result<(), Stop> {
        let mut notices = tokio::time::interval(self.progress_interval);
        notices.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        notices.reset();
        loop {
            self.tell().await?;
            tokio::select! {
                biased;
                request = requests.message() => match request {
                    Ok(Some(request)) => self.answer(request).await?,
                    Ok(None) | Err(_) => return Ok(()),
                },
                () = self.signal.notified() => {}
                _ = notices.tick() => {
                    for notice in self.engine.with(|state, _| state.progress_notices(self.id)) {
                        self.send(notice).await?;
                    }
                }
            }
        }
    }

    /// Sends all there is to tell.
    async fn tell(&self) -> Result<(), Gone> {
        loop {
            let answers = self.engine.with(|state, _| state.pull(self.id));
            if answers.is_empty() {
                return Ok(());
            }
            for answer in answers {
                self.send(answer).await?;
            }
        }
    }

    async fn send(&self, answer: PbWatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    async fn answer(&self, request: PbWatchRequest) -> Result<(), Stop> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                let link = self.link.as_ref();
                // etcd takes an empty key for the first one there can be.
                let key = if create.key.is_empty() { vec![0] } else { create.key };
                let wanted = Wanted {
                    span: Span::new(key, create.range_end),
                    start: create.start_revision,
                    id: create.watch_id,
                    puts: !create.filters.contains(&NO_PUT),
                    deletions: !create.filters.contains(&NO_DELETE),
                    prev_kv: create.prev_kv,
                    fragment: create.fragment,
                    progress: create.progress_notify,
                };
                // What is refused whatever the store holds begins no watch, so no fault is for it.
                let passage = if wanted.span.is_empty() {
                    Passage::Answer
                } else {
                    self.engine.count(Call::Watch);
                    self.engine.enter(Call::Watch, self.wants_leader, link).await?
                };
                let answer = self.engine.with(|state, _| state.watch(self.id, wanted));
                passage.leave(link).await?;
                self.send(answer).await?;
            }
            Some(PbWatchRequestUnion::CancelRequest(cancel)) => {
                if let Some(answer) =
                    self.engine.with(|state, _| state.cancel_watch(self.id, cancel.watch_id))
                {
                    self.send(answer).await?;
                }
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                if self.engine.with(|state, _| state.drops_progress(self.id)) {
                    return Ok(());
                }
                loop {
                    // Whatever was before it is told first.
                    self.tell().await?;
                    let progress = self.engine.with(|state, _| state.progress(self.id));
                    if let Some(progress) = progress {
                        self.send(progress).await?;
                        break;
                    }
                }
            }
            None => {}
        }
        Ok(())
    }
}

enum Stop {
    Gone,
    Because(Status),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Because(status)
    }
}
