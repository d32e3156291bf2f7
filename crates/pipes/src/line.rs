//! A member's socket, and the address it follows.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sereno_core::pace;
use sereno_sp::{Address, Events, Pull, Rep};

use crate::error::{Error, Result};
use crate::mode::Mode;
use crate::options::GroupOptions;

/// What a member answers instead of an acknowledgement to a message that it gives back.
pub(crate) const GIVEN_BACK: Bytes = Bytes::from_static(b"\xffsereno-pipes: given back\0");

/// The receiving socket of either mode. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) enum Socket {
    Pull(Pull),
    Rep(Rep),
}

/// Calls a method of either kind of socket.
macro_rules! either {
    ($socket:expr, $socket_name:ident => $call:expr) => {
        match $socket {
            Socket::Pull($socket_name) => $call,
            Socket::Rep($socket_name) => $call,
        }
    };
}

impl Socket {
    pub(crate) fn new(options: &GroupOptions) -> Self {
        let socket = options.socket.clone().recv_queue(options.queue).unanswered(options.queue.messages);
        match options.mode {
            Mode::AtMostOnce => Self::Pull(Pull::with_options(socket)),
            Mode::AtLeastOnce => Self::Rep(Rep::with_options(socket)),
        }
    }

    fn events(&self) -> Events {
        either!(self, socket => socket.events())
    }

    fn is_connected_to(&self, address: &Address) -> bool {
        either!(self, socket => socket.peers()).iter().any(|peer| peer.endpoint == *address)
    }

    fn cut(&self, address: &Address) {
        // An address cannot be a bad one.
        let _ = either!(self, socket => socket.disconnect(address));
    }

    /// Ends its connections, once answers that are queued are written.
    pub(crate) async fn close(&self) {
        either!(self, socket => drop(socket.close().await));
    }
}

/// Follows an address that changes.
#[derive(Debug)]
pub(crate) struct Line {
    socket: Socket,
    events: Events,
    linger: Duration,
    current: Option<Address>,
    /// Former addresses, with the time until which their connections may go on.
    ending: Vec<(Address, Instant)>,
}

impl Line {
    pub(crate) fn new(socket: Socket, linger: Duration) -> Self {
        Self { events: socket.events(), socket, linger, current: None, ending: Vec::new() }
    }

    pub(crate) fn current(&self) -> Option<&Address> {
        self.current.as_ref()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.current.as_ref().is_some_and(|address| self.socket.is_connected_to(address))
    }

    /// Connects to an address, or to none. What had been connected before may go on for a while, so that what is on its
    /// way arrives.
    pub(crate) fn follow(&mut self, address: Option<&Address>) -> Result<()> {
        if self.current.as_ref() == address {
            return Ok(());
        }
        if let Some(former) = self.current.take() {
            self.ending.push((former, pace::now() + self.linger));
        }
        if let Some(address) = address {
            let before = self.ending.len();
            self.ending.retain(|(former, _)| former != address);
            if self.ending.len() == before {
                either!(&self.socket, socket => socket.dial(address)).map_err(Error::Socket)?;
            }
            self.current = Some(address.clone());
        }
        self.prune();
        Ok(())
    }

    /// Ends what is not to be connected any longer: its time is over, or the other side has ended it.
    fn prune(&mut self) {
        let now = pace::now();
        let socket = &self.socket;
        self.ending.retain(|(address, until)| {
            let stays = *until > now && socket.is_connected_to(address);
            if !stays {
                socket.cut(address);
            }
            stays
        });
    }

    /// Waits until something happened to a connection. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let due = self.ending.iter().map(|(_, until)| *until).min();
        let over = async {
            match due {
                Some(moment) => pace::until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // What happened is looked up; events that were missed are no loss.
            event = self.events.next() => {
                if event.is_none() {
                    // The socket is closed: whoever did that has told.
                    std::future::pending::<()>().await;
                }
            }
            () = over => {}
        }
        self.prune();
    }

    pub(crate) async fn close(&self) {
        self.socket.close().await;
    }
}
