//! Locking that a panic elsewhere does not break, and giving way.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Locks. No state in this crate is left half changed by a panic: its critical sections do not call foreign code.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the rest of this task, and then other tasks, have their turn.
pub(crate) async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
