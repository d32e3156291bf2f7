//! Where what is kept.

use crate::client::Client;
use crate::epoch::Epoch;
use crate::key::{Key, KeyError, Prefix};

/// The keys below the prefix of some cells.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) prefix: Prefix,
    pub(super) base: Key,
    pub(super) cells: Prefix,
    pub(super) folded: Prefix,
    client: Client,
}

impl Layout {
    pub(super) fn new(client: &Client, prefix: &Prefix) -> Result<Self, KeyError> {
        let layout = Self {
            prefix: prefix.clone(),
            base: prefix.key("value")?,
            cells: prefix.join("cells")?,
            folded: prefix.join("folded")?,
            client: client.clone(),
        };
        // The longest name there is: if it fits, nothing below can fail.
        layout.folded.key(name("0123456789abcdef", u64::MAX)).map(|_| layout)
    }

    /// The key of a session, by the name of one of its cells. `None` for a name that no session gives.
    pub(super) fn owner(&self, cell: &str) -> Option<Key> {
        let (epoch, number) = cell.split_once('-')?;
        if epoch.is_empty() || number.parse::<u64>().is_err() {
            return None;
        }
        self.client.epoch_key(epoch).ok()
    }
}

fn name(epoch: &str, number: u64) -> String {
    format!("{epoch}-{number}")
}

/// The cell of one worker in one epoch. Nobody else writes it, so what stands in it is what that worker last did.
#[derive(Debug, Clone)]
pub(super) struct Mine {
    pub(super) epoch: Epoch,
    pub(super) name: String,
    pub(super) cell: Key,
    pub(super) receipt: Key,
}

impl Mine {
    pub(super) fn new(layout: &Layout, epoch: Epoch, number: u64) -> Result<Self, KeyError> {
        let name = name(epoch.id(), number);
        let (cell, receipt) = (layout.cells.key(&name)?, layout.folded.key(&name)?);
        Ok(Self { epoch, name, cell, receipt })
    }
}
