//! TCP over IPv4 and IPv6.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::options::SocketOptions;

/// How many connections wait to be accepted.
const BACKLOG: u32 = 1024;

pub(crate) async fn listen(host: &str, port: u16, options: &SocketOptions) -> io::Result<TcpListener> {
    let host = if host == "*" { "0.0.0.0" } else { host };
    let mut last = None;
    for address in lookup_host((host, port)).await? {
        let bound = socket(address, options).and_then(|socket| {
            // Connections of a former life that linger in the system do not keep the port. Two listeners still cannot share it.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(unknown))
}

pub(crate) async fn connect(
    host: &str,
    port: u16,
    options: &SocketOptions,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = None;
    for address in lookup_host((host, port)).await? {
        let socket = socket(address, options)?;
        match socket.connect(address).await {
            Ok(stream) => {
                prepare(&stream, options);
                return Ok((stream, address));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(unknown))
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the host has no address")
}

/// A socket with its buffers set, which must be before it connects or listens.
fn socket(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(size) = options.send_buffer {
        socket.set_send_buffer_size(u32::try_from(size).unwrap_or(u32::MAX))?;
    }
    if let Some(size) = options.recv_buffer {
        socket.set_recv_buffer_size(u32::try_from(size).unwrap_or(u32::MAX))?;
    }
    Ok(socket)
}

/// Sets what helps but is no reason to do without the connection when it cannot be set.
pub(crate) fn prepare(stream: &TcpStream, options: &SocketOptions) {
    let socket = SockRef::from(stream);
    let mut set = socket.set_tcp_nodelay(true);
    if let Some(idle) = options.keepalive {
        // The system counts in whole seconds.
        let second = Duration::from_secs(1);
        let (idle, interval) = (idle.max(second), (idle / 3).max(second));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
        set = set.and(socket.set_tcp_keepalive(&keepalive));
    }
    if let Err(error) = set {
        tracing::debug!(%error, "an option of a TCP socket was not set");
    }
}
