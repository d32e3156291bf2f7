//! The only retry policy: exponential, with full jitter, and always bounded by a deadline.

use std::time::Duration;

use tokio::time::Instant;

use crate::chance;
use crate::error::{Error, Result};

/// The waits between attempts: uniformly random below a ceiling that doubles each time.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    ceiling: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { ceiling: first, max }
    }

    /// For calls: a member that is starting, or a cluster without a leader, is asked again soon.
    pub(crate) fn calls() -> Self {
        Self::new(Duration::from_millis(20), Duration::from_millis(400))
    }

    /// For streams and sessions: many clients come back together after a fault.
    pub(crate) fn streams() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    pub(crate) fn next(&mut self) -> Duration {
        let wait = jitter(self.ceiling);
        self.ceiling = (self.ceiling * 2).min(self.max);
        wait
    }

    /// Waits, but not beyond `deadline`.
    pub(crate) async fn wait(&mut self, deadline: Instant) {
        let until = (Instant::now() + self.next()).min(deadline);
        tokio::time::sleep_until(until).await;
    }
}

/// A uniformly random duration of at most `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    most.mul_f64(chance::fraction())
}

/// What one round of an optimistic update came to; see [`Client::optimistic`](crate::Client::optimistic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a closed question: there is no third answer")]
pub enum Step<T> {
    /// Finished.
    Done(T),
    /// Somebody else changed what the round stood on: read again and try again.
    Conflict,
}

/// Runs `round` until it is done, fails, or `deadline` has passed.
pub(crate) async fn optimistic<T, F>(within: Duration, mut round: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Step<T>>>,
{
    let deadline = Instant::now() + within;
    let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
    loop {
        if let Step::Done(value) = round().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Error::Contended { deadline: within });
        }
        backoff.wait(deadline).await;
    }
}

/// Runs `round` until it gives something.
pub(crate) async fn persist<T, F: Future<Output = Option<T>>>(mut round: impl FnMut() -> F) -> T {
    let mut backoff = Backoff::streams();
    loop {
        if let Some(done) = round().await {
            return done;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_ceiling_and_no_further() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(80));
        for ceiling in [10, 20, 40, 80, 80, 80] {
            assert!(backoff.next() <= Duration::from_millis(ceiling));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn contention_ends_at_the_deadline_with_a_typed_error() {
        let started = Instant::now();
        let result = optimistic::<(), _>(Duration::from_secs(3), || async { Ok(Step::Conflict) }).await;
        assert!(matches!(result, Err(Error::Contended { .. })));
        assert!(started.elapsed() < Duration::from_millis(3250));
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_tried_again() {
        let mut rounds = 0;
        let result = optimistic(Duration::from_secs(3), || {
            rounds += 1;
            std::future::ready(Ok(if rounds < 4 { Step::Conflict } else { Step::Done(rounds) }))
        });
        assert_eq!(result.await.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn persistence_knows_no_deadline() {
        let mut rounds = 0;
        let done = persist(|| {
            rounds += 1;
            std::future::ready((rounds == 100).then_some(rounds))
        });
        assert_eq!(done.await, 100);
    }
}
