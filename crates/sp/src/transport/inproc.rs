//! Channels within the process. Messages are handed over as they are, without copying.

use std::collections::HashMap;
use std::io;
use std::sync::{LazyLock, Mutex};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::sync::lock;

/// How many messages each direction of a connection holds.
const DEPTH: usize = 128;
/// How many connections wait to be accepted.
const BACKLOG: usize = 128;

/// Who listens, by name.
static NAMES: LazyLock<Mutex<HashMap<String, Registered>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
struct Registered {
    offers: mpsc::Sender<Offer>,
}

#[derive(Debug)]
struct Offer {
    protocol: u16,
    answer: oneshot::Sender<u16>,
    sender: mpsc::Sender<Bytes>,
    receiver: mpsc::Receiver<Bytes>,
}

/// A connection before each side knows what the other is.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) theirs: u16,
    pub(crate) sender: mpsc::Sender<Bytes>,
    pub(crate) receiver: mpsc::Receiver<Bytes>,
}

pub(crate) struct Listener {
    name: String,
    protocol: u16,
    offers: mpsc::Receiver<Offer>,
}

/// A name in use. Dropping it frees the name.
#[derive(Debug)]
pub(crate) struct Entry {
    name: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&NAMES).remove(&self.name);
    }
}

/// Listens under a name; `None` when somebody else does.
pub(crate) fn listen(name: &str, protocol: u16) -> Option<(Listener, Entry)> {
    let mut names = lock(&NAMES);
    if names.contains_key(name) {
        return None;
    }
    let (sender, offers) = mpsc::channel(BACKLOG);
    names.insert(name.to_owned(), Registered { offers: sender });
    Some((Listener { name: name.to_owned(), protocol, offers }, Entry { name: name.to_owned() }))
}

impl Listener {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Raw> {
        loop {
            let Some(offer) = self.offers.recv().await else {
                // The name is given up; so is the listener, in a moment.
                return std::future::pending().await;
            };
            if offer.answer.send(self.protocol).is_ok() {
                return Ok(Raw { theirs: offer.protocol, sender: offer.sender, receiver: offer.receiver });
            }
        }
    }
}

pub(crate) async fn connect(name: &str, protocol: u16) -> io::Result<Raw> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let offers = lock(&NAMES).get(name).map(|found| found.offers.clone()).ok_or_else(refused)?;
    let (ours, receiver) = mpsc::channel(DEPTH);
    let (sender, theirs) = mpsc::channel(DEPTH);
    let (answer, answered) = oneshot::channel();
    let offer = Offer { protocol, answer, sender: ours, receiver: theirs };
    offers.send(offer).await.map_err(|_| refused())?;
    drop(offers);
    let theirs = answered.await.map_err(|_| refused())?;
    Ok(Raw { theirs, sender, receiver })
}
