//! The faults to come, scripted and random, and the record of those that were injected.

use std::collections::VecDeque;

use super::call::Call;
use super::chaos::{Chaos, Dice, Draw};
use super::fault::{Event, Fault, Injected};

/// How many injected faults are remembered.
const MEMORY: usize = 100_000;

/// The scripted and random faults to come, and the injected ones.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    scripted: VecDeque<(Call, usize, Fault)>,
    dice: Option<Dice>,
    requests: u64,
    injected: VecDeque<Injected>,
    pub(crate) no_leader: bool,
}

/// The decision for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(super) number: u64,
    pub(super) call: Call,
    pub(super) fault: Option<Fault>,
    pub(super) draw: Draw,
}

impl Plan {
    pub(super) fn script(&mut self, call: Call, count: usize, fault: Fault) {
        if count > 0 {
            self.scripted.push_back((call, count, fault));
        }
    }

    pub(super) fn randomize(&mut self, chaos: &Chaos) {
        self.dice = Some(chaos.dice());
    }

    pub(super) fn calm(&mut self) {
        self.scripted.clear();
        self.dice = None;
        self.no_leader = false;
    }

    /// A scripted fault comes before a random one, the oldest first.
    pub(crate) fn next(&mut self, call: Call) -> Turn {
        self.requests += 1;
        let draw = self.dice.as_mut().map_or(Draw::Nothing, Dice::draw);
        let mut fault = match draw {
            Draw::Fault(fault) => Some(fault),
            _ => None,
        };
        if let Some(index) = self.scripted.iter().position(|(wanted, _, _)| wanted.covers(call))
            && let Some((_, left, scripted)) = self.scripted.get_mut(index)
        {
            fault = Some(*scripted);
            *left -= 1;
            if *left == 0 {
                self.scripted.remove(index);
            }
        }
        Turn { number: self.requests, call, fault, draw }
    }

    pub(crate) fn remember(&mut self, turn: Turn, event: Option<Event>) {
        if turn.fault.is_none() && event.is_none() {
            return;
        }
        if self.injected.len() == MEMORY {
            self.injected.pop_front();
        }
        let Turn { number, call, fault, .. } = turn;
        self.injected.push_back(Injected { number, call, fault, event });
    }

    pub(super) fn injected(&self) -> Vec<Injected> {
        self.injected.iter().cloned().collect()
    }
}
