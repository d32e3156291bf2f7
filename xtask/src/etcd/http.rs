//! The two questions asked over plain HTTP: are you well, and which version are you?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(25);
/// Far more than either answer takes.
const MOST: u64 = 64 * 1024;

/// The server's version, or `unknown (TLS)` for an https endpoint that accepts connections.
pub(super) fn version(endpoint: &str) -> anyhow::Result<String> {
    if let Some(rest) = endpoint.strip_prefix("https://") {
        connect(rest)?;
        return Ok("unknown (TLS)".to_owned());
    }
    let answer = get(endpoint, "/version")?;
    match answer.get("etcdserver").and_then(Value::as_str) {
        Some(version) => Ok(version.to_owned()),
        None => bail!("{endpoint} is not an etcd: it answers /version with {answer}"),
    }
}

/// Waits until the server says that it is well; `alive` is asked in between and ends the wait with its error.
pub(super) fn wait_until_ready(
    endpoint: &str,
    limit: Duration,
    mut alive: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    loop {
        alive()?;
        let error = match get(endpoint, "/health") {
            Ok(answer) if answer.get("health").and_then(Value::as_str) == Some("true") => return Ok(()),
            Ok(answer) => anyhow!("it says {answer}"),
            Err(error) => error,
        };
        if Instant::now() >= end {
            return Err(error).with_context(|| format!("no etcd answers at {endpoint} after {limit:?}"));
        }
        thread::sleep(PAUSE);
    }
}

fn get(endpoint: &str, path: &str) -> anyhow::Result<Value> {
    let rest = endpoint.strip_prefix("http://").with_context(|| format!("{endpoint} is not plain HTTP"))?;
    let authority = rest;
    let mut stream = connect(authority)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    // Version 1.0: the answer ends with the connection, and is never sent in chunks.
    let question = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer).with_context(|| format!("{authority} does not answer"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{authority} does not speak HTTP"))?;
    serde_json::from_str(body).with_context(|| {
        format!("{authority} answers {path} with {}", head.lines().next().unwrap_or_default())
    })
}

fn connect(authority: &str) -> anyhow::Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        authority.to_socket_addrs().with_context(|| format!("{authority} is not an address"))?.collect();
    let mut last = anyhow!("{authority} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = anyhow::Error::new(error).context(format!("cannot connect to {address}")),
        }
    }
    Err(last)
}
