//! One watch stream of one side: what it was asked, and everything that came out of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Streaming;

use crate::answer::Watched;
use crate::op::Watching;
use crate::wire::{PATIENCE, Refused, Wire, silent};

/// How many refused watches show that a progress request is not answered: one in 2^24 answers comes later.
const FENCES: usize = 24;

/// A watch stream, read by a task of its own. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Stream {
    requests: mpsc::Sender<PbWatchRequest>,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    reader: JoinHandle<()>,
}

/// What came out of a stream.
///
/// Two servers may cut events into messages as they like, and put the head of the moment into the header. What none of
/// them may do is kept in `faults` of the watch: see `State::events`.
#[derive(Debug, Default)]
struct State {
    /// Created, cancelled, progress: in the order of the requests, because each is awaited before the next is sent.
    controls: VecDeque<PbWatchResponse>,
    /// What the next answer to a creation is about.
    pending: Watching,
    open: BTreeMap<i64, Open>,
    /// Answers for a watch that is not open.
    strangers: Vec<String>,
    broken: Option<Refused>,
}

#[derive(Debug)]
struct Open {
    watching: Watching,
    seen: Watched,
    /// The newest revision among the events.
    last: i64,
    /// The last message said that more of the same follows.
    in_fragment: bool,
}

/// A watch that waits for a key to be written, to know that it has seen everything before.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) stream: usize,
    pub(crate) watch_id: i64,
    pub(crate) watching: Watching,
}

impl Stream {
    pub(crate) fn open(wire: &Wire, number: usize) -> Self {
        let (requests, answers) = wire.stream("/etcdserverpb.Watch/Watch");
        let state = Arc::new(Mutex::new(State::default()));
        let changed = Arc::new(Notify::new());
        let reader = tokio::spawn(read(answers, number, Arc::clone(&state), Arc::clone(&changed)));
        Self { requests, state, changed, reader }
    }

    pub(crate) async fn create(&mut self, watching: &Watching) -> Result<PbWatchResponse, Refused> {
        self.lock().pending = watching.clone();
        self.send(watching.request()).await;
        self.control("a watch").await
    }

    /// `None` where no answer is due: nothing with this id is open. What a compaction ended counts as open.
    pub(crate) async fn cancel(&mut self, watch_id: i64) -> Option<Result<PbWatchResponse, Refused>> {
        let due = self.lock().open.contains_key(&watch_id);
        let mut union = PbWatchRequestUnion::CancelRequest(Default::default());
        if let PbWatchRequestUnion::CancelRequest(cancel) = &mut union {
            cancel.watch_id = watch_id;
        }
        self.send(PbWatchRequest { request_union: Some(union) }).await;
        if !due {
            return None;
        }
        let answer = self.control("a cancelled watch").await;
        self.lock().open.remove(&watch_id);
        Some(answer)
    }

    /// `None` where the request is dropped, or not sent because etcd's timing would decide.
    pub(crate) async fn progress(&mut self) -> Result<Option<PbWatchResponse>, Refused> {
        // A watch from the past that filters hide everything from does not show when etcd has synchronized it.
        let hides_all = |open: &Open| {
            open.watching.start_revision != 0 && open.watching.hides_puts() && open.watching.hides_deletes()
        };
        if self.lock().open.values().any(hides_all) {
            return Ok(None);
        }
        let union = PbWatchRequestUnion::ProgressRequest(Default::default());
        self.send(PbWatchRequest { request_union: Some(union) }).await;
        // etcd has queued its answer, if there is one, when it takes the next request; but answers to creations have a queue
        // of their own, and it sends from either, at random. So often in a row it is not the other one.
        for _ in 0..FENCES {
            let fence = Watching { key: b"b".to_vec(), range_end: b"a".to_vec(), ..Watching::default() };
            self.send(fence.request()).await;
            let answer = self.control("a watch of an empty range").await?;
            if !answer.created {
                self.control("a watch of an empty range").await?;
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    async fn control(&self, what: &str) -> Result<PbWatchResponse, Refused> {
        self.until(what, |state| state.controls.pop_front()).await
    }

    /// The watches that are open and were not ended by the server.
    pub(crate) fn listeners(&self, stream: usize) -> Vec<Listener> {
        let state = self.lock();
        let alive = state.open.iter().filter(|(_, open)| open.seen.ended.is_empty());
        alive
            .map(|(watch_id, open)| Listener { stream, watch_id: *watch_id, watching: open.watching.clone() })
            .collect()
    }

    /// Waits until a watch has seen this revision, or was ended.
    pub(crate) async fn await_revision(&self, watch_id: i64, revision: i64) {
        let what = format!("watch {watch_id} to see revision {revision}");
        let seen = self
            .until(&what, |state| {
                let open = state.open.get(&watch_id)?;
                let whole = open.last >= revision && !open.in_fragment;
                (whole || !open.seen.ended.is_empty()).then_some(())
            })
            .await;
        if let Err(refused) = seen
            && let Some(open) = self.lock().open.get_mut(&watch_id)
        {
            open.seen.faults.push(refused.to_string());
        }
    }

    /// Takes what every watch has seen since the last time.
    pub(crate) fn take(&self, stream: usize) -> Vec<Watched> {
        let mut state = self.lock();
        let mut taken: Vec<Watched> = Vec::new();
        for (watch_id, open) in &mut state.open {
            let fresh =
                Watched { stream, watch_id: *watch_id, ended: open.seen.ended.clone(), ..Watched::default() };
            taken.push(std::mem::replace(&mut open.seen, fresh));
        }
        let faults = std::mem::take(&mut state.strangers);
        let unasked =
            state.controls.drain(..).map(|answer| format!("an answer that nobody waits for: {answer:?}"));
        let faults: Vec<String> = faults.into_iter().chain(unasked).collect();
        if !faults.is_empty() {
            taken.push(Watched { stream, watch_id: i64::MIN, faults, ..Watched::default() });
        }
        taken
    }

    async fn send(&self, request: PbWatchRequest) {
        // A broken stream is told where its answer is awaited.
        self.requests.send(request).await.ok();
    }

    async fn until<T>(
        &self,
        what: &str,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Refused> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let mut state = self.lock();
                    if let Some(found) = check(&mut state) {
                        return Ok(found);
                    }
                    if let Some(broken) = &state.broken {
                        return Err(broken.clone());
                    }
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| Err(silent(what)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Open {
    fn new(watching: &Watching, seen: Watched) -> Self {
        Self { watching: watching.clone(), seen, last: 0, in_fragment: false }
    }
}

async fn read(
    answers: impl Future<Output = Result<Streaming<PbWatchResponse>, Refused>>,
    number: usize,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
) {
    let mut answers = answers.await;
    loop {
        let answer = match &mut answers {
            Ok(answers) => answers.message().await.map_err(Refused::from),
            Err(refused) => Err(refused.clone()),
        };
        let mut held = state.lock().expect("no panic while it is held");
        let end = match answer {
            Ok(Some(answer)) => {
                held.take_in(number, answer);
                false
            }
            Ok(None) => {
                held.broken = Some(Refused { code: tonic::Code::Ok, message: "the stream ended".to_owned() });
                true
            }
            Err(refused) => {
                held.broken = Some(refused);
                true
            }
        };
        drop(held);
        changed.notify_waiters();
        if end {
            return;
        }
    }
}

impl State {
    fn take_in(&mut self, number: usize, answer: PbWatchResponse) {
        let fresh = Watched { stream: number, watch_id: answer.watch_id, ..Watched::default() };
        if answer.created && !answer.canceled {
            // Now, not when the waiting task wakes up: events may follow at once.
            self.open.insert(answer.watch_id, Open::new(&self.pending, fresh));
            self.controls.push_back(answer);
        } else if !answer.events.is_empty() {
            self.events(answer);
        } else if answer.canceled && answer.compact_revision != 0 {
            match self.open.get_mut(&answer.watch_id) {
                Some(open) => open.seen.ended.push(answer),
                None => self.strangers.push(format!("the end of a watch that is not open: {answer:?}")),
            }
        } else {
            self.controls.push_back(answer);
        }
    }

    fn events(&mut self, answer: PbWatchResponse) {
        let Some(open) = self.open.get_mut(&answer.watch_id) else {
            self.strangers.push(format!("events of a watch that is not open: {answer:?}"));
            return;
        };
        let mut fault = |what: &str| open.seen.faults.push(what.to_owned());
        if answer.canceled || answer.compact_revision != 0 || !answer.cancel_reason.is_empty() {
            fault("events together with an end");
        }
        if answer.fragment && !open.watching.fragment {
            fault("a fragment that was not asked for");
        }
        let revisions =
            || answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        if !revisions().is_sorted() || revisions().next().is_none_or(|first| first < open.last) {
            fault("events out of order");
        }
        // One revision is one message, unless fragments were asked for.
        if !open.in_fragment && revisions().next() == Some(open.last) {
            fault("a revision in two messages");
        }
        let newest = revisions().max().unwrap_or(0);
        if answer.header.as_ref().is_none_or(|header| header.revision < newest || header.cluster_id == 0) {
            fault("a header that is older than its events");
        }
        open.last = newest;
        open.in_fragment = answer.fragment;
        open.seen.events.extend(answer.events);
    }
}
