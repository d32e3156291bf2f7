//! The store with its clock and its faults: what every service works on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use etcd_client::proto::PbCompactionRequest;
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use crate::clock::{Clock, Listener};
use crate::ending::{Cuts, Ending};
use crate::faults::{Call, Plan};
use crate::store::{Expiry, State};
use crate::wire::{Link, Wires};

/// The text by which a client says that it wants no answer from a member without a leader.
const WANTS_LEADER: &str = "hasleader";

/// The heart of a server. Everything about it is synchronous but the waits that faults ask for.
pub(crate) struct Engine {
    state: Mutex<State>,
    plan: Mutex<Plan>,
    pub(crate) clock: Clock,
    pub(crate) wires: Wires,
    pub(crate) down: AtomicBool,
    /// How often streams have been ended on command.
    cuts: Arc<Cuts>,
    /// The next lease to run out is another one than before.
    timer: Notify,
    started: [AtomicU64; Call::KINDS.len()],
}

impl Engine {
    pub(crate) fn new(state: State, clock: Clock) -> Arc<Self> {
        let engine = Arc::new(Self {
            state: Mutex::new(state),
            plan: Mutex::default(),
            clock,
            wires: Wires::default(),
            down: AtomicBool::new(false),
            cuts: Arc::default(),
            timer: Notify::new(),
            started: Default::default(),
        });
        let listener: Weak<Self> = Arc::downgrade(&engine);
        engine.clock.listen(listener);
        engine
    }

    /// Does something with the store as it is at this moment: leases whose time is up have ended.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        state.expire(now);
        let before = state.next_expiry();
        let result = work(&mut state, now);
        if state.next_expiry() != before {
            self.timer.notify_one();
        }
        result
    }

    pub(crate) fn plan<T>(&self, work: impl FnOnce(&mut Plan) -> T) -> T {
        work(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers one request: counts it, lets it meet its fault, applies it.
    pub(crate) async fn unary<Q, A>(
        &self,
        call: Call,
        request: Request<Q>,
        apply: impl FnOnce(&mut State, Duration, Q) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        self.count(call);
        let link = request.extensions().get::<Link>().cloned();
        let passage = self.enter(call, wants_leader(&request), link.as_ref()).await?;
        let answer = self.with(|state, now| apply(state, now, request.into_inner()));
        passage.leave(link.as_ref()).await?;
        answer.map(Response::new)
    }

    pub(crate) fn count(&self, call: Call) {
        if let Some(counter) = self.counter(call) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many requests of a kind there have been.
    pub(crate) fn counted(&self, call: Call) -> u64 {
        self.counter(call).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn counter(&self, call: Call) -> Option<&AtomicU64> {
        let index = Call::KINDS.iter().position(|kind| *kind == call)?;
        self.started.get(index)
    }

    /// What ends a stream that begins now.
    pub(crate) fn ending(&self, wants_leader: bool) -> Ending {
        Ending::new(&self.cuts, wants_leader)
    }

    pub(crate) fn cut_streams(&self) {
        self.cuts.cut();
    }

    pub(crate) fn lose_leader(&self) {
        self.cuts.cut_leaderless();
    }

    /// Forgets the history up to now. `None` when that had been done before.
    pub(crate) fn compact_to_head(&self) -> Option<i64> {
        self.with(|state, _| {
            let revision = state.revision();
            let request = PbCompactionRequest { revision, physical: false };
            state.compact(&request).is_ok().then_some(revision)
        })
    }

    /// Lets leases run out, or not: without a leader, or while the server is down, nobody can end them.
    pub(crate) fn settle_leases(&self) {
        let nobody = self.down.load(Ordering::Acquire) || self.plan(|plan| plan.no_leader);
        self.with(|state, now| if nobody { state.suspend_leases() } else { state.resume_leases(now) });
    }

    /// Ends leases when their time is up, for as long as somebody else holds the engine.
    pub(crate) async fn watch_leases(engine: Weak<Self>) {
        loop {
            let Some(strong) = engine.upgrade() else { return };
            let (next, now) = strong.with(|state, now| (state.next_expiry(), now));
            match next {
                Expiry::At(at) if !strong.clock.is_manual() => {
                    tokio::select! {
                        () = tokio::time::sleep(at.saturating_sub(now)) => {}
                        () = strong.timer.notified() => {}
                    }
                }
                _ => strong.timer.notified().await,
            }
        }
    }
}

impl Listener for Engine {
    fn moved(&self) {
        self.with(|_, _| {});
        self.timer.notify_one();
    }
}

pub(crate) fn wants_leader<Q>(request: &Request<Q>) -> bool {
    request.metadata().contains_key(WANTS_LEADER)
}
