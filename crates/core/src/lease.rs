//! Leases: granting, one round of keeping alive, revoking. What to do about the answers is the session's business.

use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::Instant;

use crate::call::Kind;
use crate::chance;
use crate::classify::{Fault, classify};
use crate::client::Client;
use crate::error::{Cause, Error, Result};
use crate::picker::Connection;

/// A lease as it was granted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) id: i64,
    /// What etcd granted, which is not always what was asked for.
    pub(crate) ttl: Duration,
    /// When the granting request was sent: the lease cannot end before this plus `ttl`.
    pub(crate) sent: Instant,
}

/// A lease of its own, independent of any session: etcd deletes the keys on it when its time to live has passed. For keys that
/// must outlive the process that wrote them, but not for ever, such as the messages of a topic.
///
/// Made by [`Client::timer`]. Nothing renews it but [`Timer::renew`]; dropping the handle does not end it.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(client: &sereno_core::Client) -> sereno_core::Result<()> {
/// let hour = client.timer(Duration::from_secs(3600)).await?; // keys on it are deleted an hour from now
/// hour.renew(client).await?; // or an hour from here
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    lease: i64,
    ttl: Duration,
}

impl Timer {
    pub(crate) fn lease(&self) -> i64 {
        self.lease
    }

    /// Returns the lease's number, so that another process can renew it. Without authentication, whoever knows the number can
    /// also revoke the lease.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.lease
    }

    /// Refers to a lease that another process granted, by its number and granted time to live. No I/O.
    #[must_use]
    pub fn from_id(id: i64, ttl: Duration) -> Self {
        Self { lease: id, ttl }
    }

    /// Returns the granted time to live: how long keys on the lease live after the last renewal. Whole seconds.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Renews the lease: its whole time to live begins again. One short stream; no raft write.
    ///
    /// # Errors
    /// [`Error::LeaseGone`] when it has expired; [`Error::Unavailable`] or [`Error::Timeout`].
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future may or may not have renewed the lease.
    pub async fn renew(&self, client: &Client) -> Result<()> {
        let id = self.lease;
        let call = |connection: Connection| async move {
            match connection.client.lease_client().keep_alive(id).await {
                Ok(_) => Ok(true),
                Err(error) if is_gone(&error) => Ok(false),
                Err(error) => Err(error),
            }
        };
        let alive = client.call(Kind::Idempotent, client.deadline(), call).await?;
        if alive { Ok(()) } else { Err(Error::LeaseGone) }
    }

    /// Revokes the lease: etcd deletes all keys on it at once, in one revision. One RPC.
    ///
    /// # Errors
    /// As any call. A lease that has expired already is not an error.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future may or may not have revoked the lease.
    pub async fn revoke(&self, client: &Client) -> Result<()> {
        revoke(client, self.lease, client.deadline()).await
    }
}

impl Client {
    /// Grants a lease that no session renews. `ttl` is rounded up to whole seconds, at least 1 s; etcd may grant more, see
    /// [`Timer::ttl`]. One RPC.
    ///
    /// # Errors
    /// As any call; [`Error::OutOfSpace`] when etcd's database is full.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future may leave an unused lease, which expires.
    pub async fn timer(&self, ttl: Duration) -> Result<Timer> {
        let granted = grant(self, ttl).await?;
        Ok(Timer { lease: granted.id, ttl: granted.ttl })
    }
}

/// Grants a lease. Every attempt asks under another random id, so a lost answer costs one unused lease that runs out by
/// itself, and never a mistaken identity.
pub(crate) async fn grant(client: &Client, ttl: Duration) -> Result<Granted> {
    let seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX).max(1);
    let call = |connection: Connection| async move {
        let id = i64::try_from(chance::number() >> 1).unwrap_or(i64::MAX).max(1);
        let sent = Instant::now();
        let options = LeaseGrantOptions::new().with_id(id);
        let answer = connection.client.lease_client().grant(seconds, Some(options)).await?;
        let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(0));
        Ok(Granted { id: answer.id(), ttl, sent })
    };
    client.call(Kind::Idempotent, client.deadline(), call).await
}

/// Revokes a lease; one that is gone already is a success.
pub(crate) async fn revoke(client: &Client, id: i64, within: Duration) -> Result<()> {
    let call =
        |connection: Connection| async move { connection.client.lease_client().revoke(id).await.map(|_| ()) };
    match client.call(Kind::Idempotent, within, call).await {
        Ok(()) | Err(Error::LeaseGone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What one keepalive came to.
#[derive(Debug)]
pub(crate) enum Beat {
    /// Acknowledged: alive for the time told from the instant it was sent.
    Alive { sent: Instant, ttl: Duration },
    /// The server does not know the lease any more.
    Gone,
    /// No answer: the stream was given up.
    Failed(Cause),
}

/// A keepalive stream on one member, replaced when it fails.
#[derive(Default)]
pub(crate) struct Heart {
    open: Option<(LeaseKeeper, LeaseKeepAliveStream, Connection)>,
}

impl Heart {
    /// Sends one keepalive and waits for its answer for at most `within`. No raft write.
    ///
    /// The answer's time counts from the sending; a stream that had an unanswered request is never used again, so an
    /// answer cannot be taken for that of a later request.
    pub(crate) async fn beat(&mut self, client: &Client, id: i64, ttl: Duration, within: Duration) -> Beat {
        let sent = Instant::now();
        let open = self.open.take();
        let index =
            open.as_ref().map_or_else(|| client.inner.picker.pick(), |(_, _, connection)| connection.member);
        let mut used = open.as_ref().map(|(_, _, connection)| connection.clone());
        let round = tokio::time::timeout(within, async {
            match open {
                Some((mut keeper, mut stream, connection)) => {
                    keeper.keep_alive().await.map_err(|error| classify(&error))?;
                    let answer = stream.message().await.map_err(|error| classify(&error))?;
                    let Some(answer) = answer else {
                        return Err(Fault::Ambiguous(Cause::new("the keepalive stream was closed")));
                    };
                    let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(0));
                    Ok((ttl, (keeper, stream, connection)))
                }
                None => {
                    let connection = client.inner.picker.connection(index).await?;
                    used = Some(connection.clone());
                    match connection.client.lease_client().keep_alive(id).await {
                        // The first answer's time is not passed on; it is the granted one.
                        Ok((keeper, stream)) => Ok((ttl, (keeper, stream, connection))),
                        Err(error) if is_gone(&error) => Err(Fault::Refused(Error::LeaseGone)),
                        Err(error) => Err(classify(&error)),
                    }
                }
            }
        });
        let fault = match round.await {
            Ok(Ok((ttl, _))) if ttl.is_zero() => return Beat::Gone,
            Ok(Ok((ttl, open))) => {
                self.open = Some(open);
                client.inner.picker.restore(index);
                return Beat::Alive { sent, ttl };
            }
            Ok(Err(Fault::Refused(Error::LeaseGone))) => return Beat::Gone,
            Ok(Err(fault)) => fault,
            Err(_) => Fault::Ambiguous(Cause::new(format!("no keepalive answer within {within:?}"))),
        };
        let cause = match fault {
            Fault::StaleToken(cause) => {
                used.iter().for_each(|connection| client.inner.picker.forget(connection));
                return Beat::Failed(cause);
            }
            Fault::Refused(error) => return Beat::Failed(Cause::new(error.to_string())),
            Fault::NotSent(cause)
            | Fault::Tls(cause)
            | Fault::NoLeader(cause)
            | Fault::AnswerTooLarge(cause)
            | Fault::Ambiguous(cause) => cause,
        };
        if client.inner.picker.eject(index, used.as_ref()) {
            client.probe_ejected();
        }
        Beat::Failed(cause)
    }
}

/// etcd-client reports a first answer of "no time left" so.
fn is_gone(error: &etcd_client::Error) -> bool {
    match error {
        etcd_client::Error::LeaseKeepAliveError(text) => text == "lease not found",
        other => matches!(classify(other), Fault::Refused(Error::LeaseGone)),
    }
}
