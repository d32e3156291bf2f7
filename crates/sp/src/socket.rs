//! The handle under every socket, and the methods they share.

use std::sync::Arc;

use crate::engine::Engine;
use crate::options::SocketOptions;
use crate::role::Role;

/// A socket's inside, kept by its handles. When the last of them is dropped, everything ends at once.
pub(crate) struct Socket<R: Role> {
    engine: Arc<Engine<R>>,
}

impl<R: Role> Socket<R> {
    pub(crate) fn new(role: R, options: SocketOptions) -> Arc<Self> {
        Arc::new(Self { engine: Arc::new(Engine::new(role, options)) })
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<R>> {
        &self.engine
    }

    pub(crate) fn role(&self) -> &R {
        &self.engine.role
    }
}

impl<R: Role> Drop for Socket<R> {
    fn drop(&mut self) {
        self.engine.shut();
    }
}

/// How a socket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// How many accepted messages were not handed to the system; for REQ, how many requests were not answered.
    pub undelivered: u64,
}

/// The methods of every kind of socket.
macro_rules! socket {
    ($name:ident, $role:ty, $new:ident) => {
        impl $name {
            /// A socket with the default options. It does nothing until it listens or dials.
            #[must_use]
            pub fn new() -> Self {
                Self::with_options($crate::SocketOptions::default())
            }

            /// A socket with these options.
            #[must_use]
            pub fn with_options(options: $crate::SocketOptions) -> Self {
                let role = <$role>::$new(&options);
                Self { socket: $crate::socket::Socket::new(role, options) }
            }

            /// Listens on an address, beside those it listens on and dials already. Returns the address with the port
            /// that the system chose and the host's number.
            ///
            /// # Errors
            /// [`Error::BadAddress`](crate::Error::BadAddress), [`Error::AddressInUse`](crate::Error::AddressInUse),
            /// [`Error::AlreadyUsed`](crate::Error::AlreadyUsed), [`Error::Listen`](crate::Error::Listen),
            /// [`Error::BadTls`](crate::Error::BadTls), [`Error::NeedsTls`](crate::Error::NeedsTls),
            /// [`Error::Closed`](crate::Error::Closed).
            ///
            /// # Cancel safety
            /// Cancelled: it does not listen.
            pub async fn listen<A>(&self, address: A) -> $crate::Result<$crate::Address>
            where
                A: TryInto<$crate::Address>,
                A::Error: Into<$crate::Error>,
            {
                $crate::endpoint::listen(self.socket.engine(), address.try_into().map_err(Into::into)?).await
            }

            /// Keeps connecting to an address in the background, beside those it listens on and dials already. Returns at
            /// once: nobody need listen there yet.
            ///
            /// # Errors
            /// [`Error::BadAddress`](crate::Error::BadAddress), [`Error::AlreadyUsed`](crate::Error::AlreadyUsed),
            /// [`Error::BadTls`](crate::Error::BadTls), [`Error::NeedsTls`](crate::Error::NeedsTls),
            /// [`Error::NoRuntime`](crate::Error::NoRuntime), [`Error::Closed`](crate::Error::Closed).
            pub fn dial<A>(&self, address: A) -> $crate::Result<()>
            where
                A: TryInto<$crate::Address>,
                A::Error: Into<$crate::Error>,
            {
                $crate::endpoint::dial(self.socket.engine(), address.try_into().map_err(Into::into)?)
            }

            /// Listens on or dials an address no longer, and ends the connections that came by it. `false` when it did
            /// neither. A listener is named by the address that `listen` returned. The port is free a moment later.
            ///
            /// # Errors
            /// [`Error::BadAddress`](crate::Error::BadAddress).
            pub fn disconnect<A>(&self, address: A) -> $crate::Result<bool>
            where
                A: TryInto<$crate::Address>,
                A::Error: Into<$crate::Error>,
            {
                Ok(self.socket.engine().remove_endpoint(&address.try_into().map_err(Into::into)?))
            }

            /// The addresses it listens on, with their real ports.
            #[must_use]
            pub fn addresses(&self) -> Vec<$crate::Address> {
                self.socket.engine().listening()
            }

            /// Who is connected now, in the order in which they came.
            #[must_use]
            pub fn peers(&self) -> Vec<$crate::Peer> {
                self.socket.engine().peers()
            }

            /// Who comes and goes, from now on.
            #[must_use]
            pub fn events(&self) -> $crate::Events {
                self.socket.engine().events()
            }

            /// Waits until at least so many peers are connected.
            ///
            /// # Errors
            /// [`Error::Closed`](crate::Error::Closed).
            ///
            /// # Cancel safety
            /// Nothing is changed.
            pub async fn connected(&self, count: usize) -> $crate::Result<()> {
                self.socket.engine().connected(count).await
            }

            /// What it has done so far.
            #[must_use]
            pub fn stats(&self) -> $crate::Stats {
                self.socket.engine().stats()
            }

            /// Closes the socket, for all its clones: nothing is accepted any more, what was accepted is sent if that is
            /// possible within [`SocketOptions::linger`](crate::SocketOptions::linger), and then ports, files and tasks are
            /// free. What had come before can still be received. Closing again returns the same.
            ///
            /// # Cancel safety
            /// Cancelled: nothing is accepted any more; the rest is done when it is closed again, or dropped.
            pub async fn close(&self) -> $crate::Closed {
                $crate::Closed::new(self.socket.engine().close().await)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("addresses", &self.addresses())
                    .field("peers", &self.peers().len())
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use socket;

impl Closed {
    pub(crate) fn new(undelivered: u64) -> Self {
        Self { undelivered }
    }
}
