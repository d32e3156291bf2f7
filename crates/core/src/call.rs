//! Calls: sent to a member that answers, bounded, and repeated only where that is safe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::classify::{Fault, broke_early, classify};
use crate::client::{Client, Inner};
use crate::endpoint::{self, Listener};
use crate::error::{Cause, Error, Result};
use crate::picker::Connection;

tokio::task_local! {
    /// When the operation that the present calls are parts of must end.
    static UNTIL: Instant;
}

/// When something that may take `within` must end: earlier if it is part of an operation that ends earlier.
pub(crate) fn until(within: Duration) -> Instant {
    let own = Instant::now() + within;
    UNTIL.try_with(|outer| own.min(*outer)).unwrap_or(own)
}

/// With less time left no member is asked any more: it could hardly answer, and a write would be left unknown.
const LEAST: Duration = Duration::from_millis(10);

/// So many connections ended around the TLS handshake, or so many answers of something else than etcd, and none that
/// ever worked, are no accident.
const SUSPECT: usize = 6;

/// Whether a call may be repeated when its answer is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Repeating it changes nothing.
    Idempotent,
    /// Only what was certainly not applied is repeated.
    Once,
}

impl Client {
    /// Runs an operation of several calls so that it ends within the deadline as a whole, not each of its calls.
    pub(crate) async fn as_one<F: Future>(&self, operation: F) -> F::Output {
        UNTIL.scope(until(self.deadline()), operation).await
    }

    /// As [`Client::as_one`] for what goes on in another task: it must end by then.
    pub(crate) async fn by<F: Future>(deadline: Instant, operation: F) -> F::Output {
        UNTIL.scope(deadline, operation).await
    }

    /// Sends one call to a member that answers, within `within` in all.
    pub(crate) async fn call<T, F, Fut>(&self, kind: Kind, within: Duration, send: F) -> Result<T>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.inner.rolled_back()?;
        let inner = &self.inner;
        let deadline = until(within);
        if Instant::now() + LEAST > deadline {
            return Err(Error::Unavailable {
                deadline: within,
                cause: Cause::new("no time was left to try"),
            });
        }
        let started = Instant::now();
        let mut backoff = Backoff::calls();
        let mut failures = 0usize;
        let mut tls_failures = 0usize;
        let mut broken = 0usize;
        let mut foreign = 0usize;
        let mut listeners = BTreeMap::new();
        let mut causes = BTreeMap::new();
        let mut stale_tokens = 0usize;
        loop {
            let index = inner.picker.pick();
            let whole = inner.attempt(within);
            let attempt = whole.min(deadline.saturating_duration_since(Instant::now()));
            let mut cut_short = false;
            let mut used = None;
            // On the heap, because everything a recipe awaits would carry the many kilobytes of a gRPC call otherwise.
            let sent = Box::pin(async {
                let connection = inner.picker.connection(index).await?;
                used = Some(connection.clone());
                send(connection).await.map_err(|error| classify(&error))
            });
            let sent = tokio::time::timeout(attempt, sent);
            let fault = match sent.await {
                Ok(Ok(value)) => {
                    inner.picker.restore(index);
                    return Ok(value);
                }
                Ok(Err(fault)) => fault,
                Err(_) => {
                    cut_short = attempt < whole;
                    if used.is_none() {
                        Fault::NotSent(Cause::new("connecting took too long"))
                    } else {
                        Fault::Ambiguous(Cause::new(format!("no answer within {attempt:?}")))
                    }
                }
            };
            tracing::debug!(member = index, ?fault, "call failed");
            if inner.unproven_tls(index) && broke_early(&fault) {
                broken += 1;
            }
            let explain = |cause| endpoint::explain(inner.picker.name(index), &cause, inner.is_proven());
            let (cause, sent) = match fault {
                Fault::Refused(error) => return Err(error),
                Fault::AnswerTooLarge(cause) => {
                    return Err(match kind {
                        Kind::Once => Error::OutcomeUnknown { cause },
                        Kind::Idempotent => {
                            let limit = inner.options.decode_limit;
                            Error::TooLarge { what: "answer", size: limit.saturating_add(1), limit }
                        }
                    });
                }
                // Each member may have forgotten its tokens.
                Fault::StaleToken(cause) if stale_tokens >= inner.picker.len() => {
                    return Err(Error::Unauthenticated { cause });
                }
                Fault::StaleToken(cause) => {
                    stale_tokens += 1;
                    used.iter().for_each(|connection| inner.picker.forget(connection));
                    if inner.options.credentials.is_none() {
                        return Err(Error::Unauthenticated { cause });
                    }
                    continue;
                }
                Fault::Tls(cause) => {
                    tls_failures += 1;
                    let cause = explain(cause);
                    if tls_failures >= inner.picker.len() {
                        causes.insert(index, cause);
                        return Err(Error::Tls { cause: all(&causes) });
                    }
                    (cause, false)
                }
                Fault::NotSent(cause) | Fault::NoLeader(cause) => (explain(cause), false),
                Fault::Ambiguous(cause) => (explain(cause), true),
            };
            if inner.picker.eject(index, used.as_ref()) {
                self.probe_ejected();
            }
            if sent && kind == Kind::Once {
                return Err(Error::OutcomeUnknown { cause });
            }
            failures += 1;
            let name = inner.picker.name(index);
            let mut cause = cause;
            if !inner.is_proven() && endpoint::may_want_tls(name, &cause) {
                let listener = match listeners.get(&index) {
                    Some(known) => *known,
                    None => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        let found = Listener::find(name, attempt.min(left)).await;
                        listeners.insert(index, found);
                        tls_failures += usize::from(found == Listener::Tls);
                        found
                    }
                };
                cause = listener.explain(name).unwrap_or(cause);
            }
            foreign += usize::from(!inner.is_proven() && endpoint::is_foreign(&cause));
            // What the deadline has cut short says less than what was said before.
            if !(cut_short && causes.contains_key(&index)) {
                causes.insert(index, cause);
            }
            if tls_failures >= inner.picker.len() {
                return Err(Error::Tls { cause: all(&causes) });
            }
            let long_enough = started.elapsed() >= (within / 2).min(Duration::from_secs(1));
            if broken >= SUSPECT && long_enough {
                return Err(Error::Tls { cause: all(&causes) });
            }
            if foreign >= SUSPECT && foreign == failures && long_enough {
                return Err(Error::Refused { cause: all(&causes) });
            }
            // The other members first, without waiting; then all again, with.
            if failures.is_multiple_of(inner.picker.len()) {
                backoff.wait(deadline).await;
            }
            if Instant::now() + LEAST > deadline {
                return Err(match kind {
                    Kind::Idempotent if sent => Error::Timeout { deadline: within, cause: all(&causes) },
                    _ => Error::Unavailable { deadline: within, cause: all(&causes) },
                });
            }
        }
    }

    /// Ejected members are asked in the background until they answer, so that a caller never has to try them.
    pub(crate) fn probe_ejected(&self) {
        if self.inner.picker.len() < 2 || self.inner.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
            loop {
                tokio::time::sleep(Duration::from_millis(100) + backoff.next()).await;
                let Some(inner) = weak.upgrade() else { return };
                for index in inner.picker.ejected() {
                    inner.probe(index).await;
                }
                if inner.picker.ejected().is_empty() {
                    inner.probing.store(false, Ordering::Release);
                    // One that was ejected between the two lines above found a probe running and relies on it.
                    if inner.picker.ejected().is_empty() || inner.probing.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        });
    }
}

/// What each endpoint that was tried said last.
fn all(causes: &BTreeMap<usize, Cause>) -> Cause {
    let texts: Vec<String> = causes.values().map(ToString::to_string).collect();
    match texts.as_slice() {
        [one] => Cause::new(one.as_str()),
        several => Cause::new(format!("{} endpoints were tried: {}", several.len(), several.join("; "))),
    }
}

impl Inner {
    /// How long one member may take: less than everything when there is another one to try.
    fn attempt(&self, within: Duration) -> Duration {
        if self.picker.len() > 1 { self.options.attempt.min(within / 3) } else { self.options.attempt }
    }

    /// Whether any member has ever answered.
    fn is_proven(&self) -> bool {
        self.cluster.load(Ordering::Acquire) != 0
    }

    /// Whether a member is spoken to with TLS, and no answer of any member has come yet.
    fn unproven_tls(&self, index: usize) -> bool {
        !self.is_proven() && self.picker.is_tls(index)
    }

    async fn probe(&self, index: usize) {
        let asked = tokio::time::timeout(self.options.attempt, async {
            let connection = self.picker.connection(index).await?;
            let key = self.options.namespace.root().reserved("probe");
            // Linearizable, so that a member without a leader stays out.
            let answer = connection.client.kv_client().get(key.as_bytes(), None).await;
            match answer.map_err(|error| classify(&error)) {
                Err(
                    fault @ (Fault::NotSent(_) | Fault::NoLeader(_) | Fault::Ambiguous(_) | Fault::Tls(_)),
                ) => {
                    self.picker.forget(&connection);
                    Err(fault)
                }
                Err(Fault::StaleToken(_)) => {
                    self.picker.forget(&connection);
                    Ok(())
                }
                // Even a refusal is an answer.
                Err(Fault::Refused(_) | Fault::AnswerTooLarge(_)) | Ok(_) => Ok(()),
            }
        });
        if let Ok(Ok(())) = asked.await {
            self.picker.restore(index);
        }
    }
}
