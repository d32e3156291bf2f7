//! Finding out that a watch stream has died, by what is heard on it.
//!
//! A quiet stream is asked for its progress. An answer shows that it lives; silence shows nothing yet, because etcd drops the
//! request in more and more cases: since 3.5.8 while a watch of the stream is not synchronized, was ended by a compaction
//! and not cancelled, or there is none; since 3.5.22 also while one starts in the future, as every watch does on a store that
//! has not changed since it was read. So what is not answered is followed by a watch of an empty range. Every version
//! refuses that on the same stream, whatever the other watches are doing, and keeps nothing of it. It is not asked for
//! first because etcd checks the token of every new watch, and logs a warning when it has expired.
//!
//! Time counts as silence only while this process runs, because nothing can be heard while it does not: after the first
//! standstill the question is asked again, and any later one counts as two ticks.

use std::time::Duration;

use tokio::time::Instant;

/// How often a stream's silence is looked at.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// A stream that said nothing for so long is asked …
const QUIET: Duration = Duration::from_secs(1);
/// … and given up when it does not answer for so long: silence is found within 2.65 s.
const SILENT: Duration = Duration::from_millis(1250);
/// A tick that comes later than this shows that the process stood still.
const LATE: Duration = Duration::from_millis(400);

/// What to do about a stream at a tick of the clock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    AskForProgress,
    AskForRefusal,
    Stalled,
}

/// What is known of one stream.
pub(super) struct Silence {
    ticked: Instant,
    /// How long nothing was heard.
    quiet: Duration,
    /// How long it had been quiet when it was asked.
    asked: Option<Duration>,
    asked_again: bool,
    stood_still: bool,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self {
            ticked: Instant::now(),
            quiet: Duration::ZERO,
            asked: None,
            asked_again: false,
            stood_still: false,
        }
    }

    /// Something came, or nothing could be heard until now.
    pub(super) fn end(&mut self) {
        *self = Self::new();
    }

    /// To be called at every tick.
    pub(super) fn tick(&mut self) -> Verdict {
        let passed = self.ticked.elapsed();
        self.ticked = Instant::now();
        self.quiet += passed.min(LATE);
        if passed > LATE && !self.stood_still {
            self.stood_still = true;
            self.asked = None;
            self.asked_again = false;
        }
        match self.asked {
            Some(since) if self.quiet.saturating_sub(since) >= SILENT => Verdict::Stalled,
            Some(_) if !self.asked_again => {
                self.asked_again = true;
                Verdict::AskForRefusal
            }
            None if self.quiet >= QUIET => {
                self.asked = Some(self.quiet);
                Verdict::AskForProgress
            }
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until_not_waiting(silence: &mut Silence, tick: Duration) -> (Verdict, Duration) {
        let started = Instant::now();
        for _ in 0..100 {
            tokio::time::advance(tick).await;
            let verdict = silence.tick();
            if verdict != Verdict::Wait {
                return (verdict, started.elapsed());
            }
        }
        panic!("silence is never found");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_asked_twice_and_then_given_up_within_the_bound() {
        let mut silence = Silence::new();
        let (first, quiet) = until_not_waiting(&mut silence, TICK).await;
        assert_eq!((first, quiet), (Verdict::AskForProgress, QUIET));
        let (second, after) = until_not_waiting(&mut silence, TICK).await;
        assert_eq!((second, after), (Verdict::AskForRefusal, TICK));
        let (third, rest) = until_not_waiting(&mut silence, TICK).await;
        assert_eq!(third, Verdict::Stalled);
        // The first tick may come a whole one after the stream fell silent.
        assert!(TICK + quiet + after + rest <= Duration::from_millis(2650), "{:?}", quiet + after + rest);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_either_question_ends_the_silence() {
        let mut silence = Silence::new();
        for _ in 0..3 {
            assert_eq!(until_not_waiting(&mut silence, TICK).await.0, Verdict::AskForProgress);
            silence.end();
            assert_eq!(until_not_waiting(&mut silence, TICK).await, (Verdict::AskForProgress, QUIET));
            assert_eq!(until_not_waiting(&mut silence, TICK).await.0, Verdict::AskForRefusal);
            silence.end();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_asks_again_before_it_gives_a_stream_up() {
        let mut silence = Silence::new();
        assert_eq!(until_not_waiting(&mut silence, TICK).await.0, Verdict::AskForProgress);
        assert_eq!(until_not_waiting(&mut silence, TICK).await.0, Verdict::AskForRefusal);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(silence.tick(), Verdict::AskForProgress);
        assert_eq!(until_not_waiting(&mut silence, TICK).await.0, Verdict::AskForRefusal);
        let (verdict, rest) = until_not_waiting(&mut silence, TICK).await;
        assert_eq!(verdict, Verdict::Stalled);
        assert!(TICK + rest >= SILENT, "{rest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_found_by_a_process_that_stands_still_all_the_time() {
        let mut silence = Silence::new();
        let started = Instant::now();
        while until_not_waiting(&mut silence, 2 * LATE).await.0 != Verdict::Stalled {}
        assert!(started.elapsed() <= Duration::from_secs(8), "{:?}", started.elapsed());
    }
}
