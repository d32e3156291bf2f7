//! The task behind a roster: follows the group, and gives back claims.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sereno_core::{CancellationToken, Watcher};
use tokio::task::JoinSet;

use crate::ledger::Ledger;
use crate::roster::Inner;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) async fn run(inner: Arc<Inner>, watcher: Watcher, ledger: Ledger, closing: CancellationToken) {
    let mut releases = JoinSet::new();
    {
        let mut follow = std::pin::pin!(follow(&inner, watcher, ledger));
        loop {
            tokio::select! {
                biased;
                // What is claimed and held ends with the session.
                () = closing.cancelled() => return,
                () = inner.over.cancelled() => break,
                () = inner.wake.notified() => release(&inner, &mut releases),
                Some(_) = releases.join_next(), if !releases.is_empty() => {}
                () = &mut follow => return,
            }
        }
    }
    release(&inner, &mut releases);
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = async { while releases.join_next().await.is_some() {} } => {}
    }
}

fn release(inner: &Inner, releases: &mut JoinSet<()>) {
    let asked = std::mem::take(&mut *inner.releases.lock().unwrap_or_else(PoisonError::into_inner));
    for release in asked {
        let client = inner.client.clone();
        releases.spawn(async move { release.persist(&client).await });
    }
}

/// Follows the group without end.
async fn follow(inner: &Inner, mut watcher: Watcher, mut ledger: Ledger) {
    loop {
        watch(inner, &mut watcher, &mut ledger).await;
        // Something that does not pass by itself, such as a lost permission: nothing can be said meanwhile.
        inner.publish(&mut ledger, 0, false);
        let again =
            inner.client.patiently(FOR_EVER, async || match inner.client.watch(&inner.keys.group).await {
                Ok(watcher) => Some(watcher),
                Err(error) => {
                    tracing::debug!(%error, group = %inner.keys.group, "following a group again");
                    None
                }
            });
        let Some(again) = again.await else { return };
        watcher = again;
        ledger = Ledger::of(&inner.keys, watcher.view());
        inner.publish(&mut ledger, watcher.view().revision(), true);
    }
}

/// Follows the group until its watch ends. What has come in together is published together.
async fn watch(inner: &Inner, watcher: &mut Watcher, ledger: &mut Ledger) {
    while let Some(first) = watcher.next().await {
        let mut update = Some(first);
        while let Some(next) = update.take() {
            match next {
                Ok(next) => next.changes.iter().for_each(|change| ledger.apply(&inner.keys, change)),
                Err(error) => tracing::debug!(%error, group = %inner.keys.group, "reading a group again"),
            }
            update = tokio::select! {
                biased;
                next = watcher.next() => next,
                () = std::future::ready(()) => None,
            };
        }
        inner.publish(ledger, watcher.view().revision(), true);
    }
}
