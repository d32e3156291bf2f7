//! Injects faults into requests.

use std::time::Duration;

use tonic::Status;

use super::call::Call;
use super::chaos::Draw;
use super::fault::{Event, Fault};
use crate::engine::Engine;
use crate::store::Refusal;
use crate::wire::Link;

/// The part of a fault that comes after the request was applied.
#[derive(Debug)]
#[must_use]
pub(crate) enum Passage {
    Answer,
    Lose,
    Hang,
    Wait(Duration),
}

impl Passage {
    /// Finishes the fault after the request was applied. The answer is sent only if this returns `Ok`.
    pub(crate) async fn leave(self, link: Option<&Link>) -> Result<(), Status> {
        match self {
            Self::Answer => Ok(()),
            Self::Lose => Err(cut(link)),
            Self::Hang => std::future::pending().await,
            Self::Wait(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
        }
    }
}

impl Engine {
    /// Starts the fault of a request. The request is applied only if this returns `Ok`.
    pub(crate) async fn enter(
        &self,
        call: Call,
        wants_leader: bool,
        link: Option<&Link>,
    ) -> Result<Passage, Status> {
        let (fault, no_leader) = self.meet(call);
        if no_leader {
            return Err(no_leader_answer(wants_leader).await);
        }
        match fault {
            None => Ok(Passage::Answer),
            Some(Fault::LoseRequest) => Err(cut(link)),
            Some(Fault::LoseReply) => Ok(Passage::Lose),
            Some(Fault::HangRequest) => std::future::pending().await,
            Some(Fault::HangReply) => Ok(Passage::Hang),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(Passage::Answer)
            }
            Some(Fault::DelayReply(time)) => Ok(Passage::Wait(time)),
            Some(Fault::Refuse) => Err(Refusal::STOPPED.into()),
            Some(Fault::NoLeader) => Err(Refusal::NO_LEADER.into()),
            Some(Fault::OutOfSpace) => Err(Refusal::NO_SPACE.into()),
        }
    }

    /// Decides the fault of a request, and makes the change of the server that was drawn with it.
    fn meet(&self, call: Call) -> (Option<Fault>, bool) {
        let (turn, no_leader) = self.plan(|plan| (plan.next(call), plan.no_leader));
        let event = match turn.draw {
            Draw::CutStreams => {
                self.cut_streams();
                Some(Event::CutStreams)
            }
            Draw::ExpireLease(n) => self.with(|state, _| {
                let lease = state.nth_lease(n)?;
                state.end_lease(lease).then_some(Event::ExpireLease(lease))
            }),
            Draw::Compact => self.compact_to_head().map(Event::Compact),
            Draw::Nothing | Draw::Fault(_) => None,
        };
        self.plan(|plan| plan.remember(turn, event));
        (turn.fault, no_leader)
    }
}

/// etcd's answer without a leader: immediate for requests that require one, after 7 s for others.
async fn no_leader_answer(wants_leader: bool) -> Status {
    if wants_leader {
        return Refusal::NO_LEADER.into();
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    Refusal::TIMED_OUT.into()
}

/// Resets the connection. The returned status never reaches the client.
fn cut(link: Option<&Link>) -> Status {
    if let Some(link) = link {
        link.cut();
    }
    Refusal::STOPPED.into()
}
