//! The hosts of a service as tower wants them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tower::discover::Change;

use crate::error::Result;
use crate::host::Host;
use crate::reachable::{HostKey, Reachable, Step};
use crate::traits::ChangeStream;

/// A [`tower::discover::Discover`] that follows a service: hosts come and go in a balancer of tower's as they do in the
/// registry.
///
/// `make` makes the service that sends requests to a host. A host that is draining, or has no weight, is removed; one that is
/// reached otherwise than before, or with other credentials, is removed and inserted again under another key. Other weights
/// are not looked at. It ends after an error of the stream, which no state of etcd's causes.
///
/// ```
/// use sereno_discovery::{FakeWorld, Host, HostDiscover, ServiceDirectory, ServiceRegistry};
/// use tower::balance::p2c::Balance;
/// use tower::load::Constant;
/// use tower::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let world = FakeWorld::new();
/// let (registry, directory) = (world.registry(), world.directory());
/// let registration = registry.register("api", Host::new("api-1"))?;
///
/// let discover = HostDiscover::new(directory.watch("api", "").await?, |host| {
///     let name = host.hostname.clone();
///     let call = service_fn(move |()| std::future::ready(Ok::<_, std::io::Error>(name.clone())));
///     Constant::new(call, 0)
/// });
/// assert_eq!(Balance::new(discover).oneshot(()).await?, "api-1");
/// # Ok(())
/// # }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct HostDiscover<F> {
    changes: ChangeStream,
    reachable: Reachable,
    make: F,
}

impl<F> HostDiscover<F> {
    /// Of a stream of changes: a [`Changes`](crate::Changes), or the one of a
    /// [`ServiceDirectory`](crate::ServiceDirectory).
    pub fn new<S>(changes: impl Stream<Item = Result<crate::Change>> + Send + 'static, make: F) -> Self
    where
        F: FnMut(&Host) -> S,
    {
        Self { changes: Box::pin(changes), reachable: Reachable::default(), make }
    }
}

impl<F, S> Stream for HostDiscover<F>
where
    F: FnMut(&Host) -> S + Unpin,
{
    type Item = Result<Change<HostKey, S>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.reachable.next() {
                Some(Step::Insert(key, host)) => {
                    return Poll::Ready(Some(Ok(Change::Insert(key, (this.make)(&host)))));
                }
                Some(Step::Remove(key)) => return Poll::Ready(Some(Ok(Change::Remove(key)))),
                None => match ready!(this.changes.as_mut().poll_next(cx)) {
                    Some(Ok(change)) => this.reachable.take(change),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                },
            }
        }
    }
}

impl<F> fmt::Debug for HostDiscover<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostDiscover").field("reachable", &self.reachable).finish_non_exhaustive()
    }
}
