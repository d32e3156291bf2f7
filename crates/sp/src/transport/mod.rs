//! Ways to carry bytes or messages: TCP, Unix sockets, TLS, and channels within the process.

pub(crate) mod inproc;
pub(crate) mod ipc;
mod stream;
pub(crate) mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::io;

use tokio::net::{TcpListener, UnixListener};

use crate::address::Address;
use crate::error::{Error, Result};
use crate::frame::Style;
use crate::options::SocketOptions;
pub(crate) use stream::Stream;

/// A connection before the hello.
pub(crate) enum Raw {
    Stream(Stream, Style),
    #[cfg(feature = "tls")]
    TlsServer(tokio::net::TcpStream, tokio_rustls::TlsAcceptor),
    #[cfg(feature = "tls")]
    TlsClient(tokio::net::TcpStream, Box<tls::Connector>),
    Inproc(inproc::Raw),
}

/// Something that listens.
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(feature = "tls")]
    Tls(TcpListener, tokio_rustls::TlsAcceptor),
    Ipc(UnixListener, Address),
    Inproc(inproc::Listener),
}

/// What goes away with a listener: the name under which it was found. Dropping it removes the name at once, also when
/// the listener itself lives a moment longer.
#[derive(Debug)]
pub(crate) enum Name {
    None,
    File(#[allow(dead_code)] ipc::File),
    Entry(#[allow(dead_code)] inproc::Entry),
}

impl Listener {
    /// Listens, and tells where.
    pub(crate) async fn bind(
        address: &Address,
        options: &SocketOptions,
        protocol: u16,
    ) -> Result<(Self, Address, Name)> {
        let failed = |error: io::Error| listen_error(address, error);
        match address {
            Address::Tcp { host, port } => {
                let listener = tcp::listen(host, *port, options).await.map_err(failed)?;
                let local = listener.local_addr().map_err(failed)?;
                let address = Address::Tcp { host: local.ip().to_string(), port: local.port() };
                Ok((Self::Tcp(listener), address, Name::None))
            }
            #[cfg(feature = "tls")]
            Address::Tls { host, port } => {
                let acceptor = tls::acceptor(&options.tls)?;
                let listener = tcp::listen(host, *port, options).await.map_err(failed)?;
                let local = listener.local_addr().map_err(failed)?;
                let address = Address::Tls { host: local.ip().to_string(), port: local.port() };
                Ok((Self::Tls(listener, acceptor), address, Name::None))
            }
            #[cfg(not(feature = "tls"))]
            Address::Tls { .. } => Err(Error::NeedsTls { address: address.to_string() }),
            Address::Ipc(path) => {
                let (listener, file) = ipc::listen(path).await.map_err(failed)?;
                Ok((Self::Ipc(listener, address.clone()), address.clone(), Name::File(file)))
            }
            Address::Inproc(name) => {
                let (listener, entry) = inproc::listen(name, protocol)
                    .ok_or_else(|| Error::AddressInUse { address: address.to_string() })?;
                Ok((Self::Inproc(listener), address.clone(), Name::Entry(entry)))
            }
        }
    }

    /// The next connection, and where it comes from. Cancel safe.
    pub(crate) async fn accept(&mut self, options: &SocketOptions) -> io::Result<(Raw, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                tcp::prepare(&stream, options);
                Ok((Raw::Stream(Stream::Tcp(stream), Style::Tcp), format!("tcp://{from}")))
            }
            #[cfg(feature = "tls")]
            Self::Tls(listener, acceptor) => {
                let (stream, from) = listener.accept().await?;
                tcp::prepare(&stream, options);
                Ok((Raw::TlsServer(stream, acceptor.clone()), format!("tls+tcp://{from}")))
            }
            Self::Ipc(listener, address) => {
                let (stream, _) = listener.accept().await?;
                ipc::prepare(&stream, options);
                Ok((Raw::Stream(Stream::Ipc(stream), Style::Ipc), address.to_string()))
            }
            Self::Inproc(listener) => {
                let raw = listener.accept().await?;
                Ok((Raw::Inproc(raw), format!("inproc://{}", listener.name())))
            }
        }
    }
}

/// Connects. Cancel safe: what was not returned is closed.
pub(crate) async fn connect(
    address: &Address,
    options: &SocketOptions,
    protocol: u16,
) -> io::Result<(Raw, String)> {
    match address {
        Address::Tcp { host, port } => {
            let (stream, to) = tcp::connect(host, *port, options).await?;
            Ok((Raw::Stream(Stream::Tcp(stream), Style::Tcp), format!("tcp://{to}")))
        }
        #[cfg(feature = "tls")]
        Address::Tls { host, port } => {
            let connector = tls::connector(&options.tls, host).map_err(io::Error::other)?;
            let (stream, to) = tcp::connect(host, *port, options).await?;
            Ok((Raw::TlsClient(stream, Box::new(connector)), format!("tls+tcp://{to}")))
        }
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => Err(io::ErrorKind::Unsupported.into()),
        Address::Ipc(path) => {
            let stream = tokio::net::UnixStream::connect(path).await?;
            ipc::prepare(&stream, options);
            Ok((Raw::Stream(Stream::Ipc(stream), Style::Ipc), address.to_string()))
        }
        Address::Inproc(name) => {
            Ok((Raw::Inproc(inproc::connect(name, protocol).await?), address.to_string()))
        }
    }
}

/// Whether dialling this address can ever work with these options.
pub(crate) fn check_dial(address: &Address, options: &SocketOptions) -> Result<()> {
    let never = |reason| Err(Error::BadAddress { address: address.to_string(), reason });
    match address {
        Address::Tcp { host, .. } | Address::Tls { host, .. } if host == "*" => {
            return never("* is for listening; dial a host by its name or address");
        }
        Address::Tcp { port: 0, .. } | Address::Tls { port: 0, .. } => {
            return never("port 0 is for listening; dial the port that the listener got");
        }
        _ => {}
    }
    match address {
        #[cfg(feature = "tls")]
        Address::Tls { host, .. } => tls::connector(&options.tls, host).map(drop),
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => Err(Error::NeedsTls { address: address.to_string() }),
        _ => {
            let _ = options;
            Ok(())
        }
    }
}

fn listen_error(address: &Address, error: io::Error) -> Error {
    let address = address.to_string();
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse { address },
        _ => Error::Listen { address, source: error.into() },
    }
}
