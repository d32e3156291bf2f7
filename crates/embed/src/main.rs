//! `sereno-embed`: the server as a program, for whatever speaks to etcd.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use sereno_embed::Server;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
sereno-embed: an etcd v3 server in memory, for development and tests. Nothing is kept when it ends.

  --listen ADDRESS   where to listen; port 0 is any free one, none is 2379 (default 127.0.0.1:2379)
  --any-address      allow an address that other machines can reach: there is neither TLS nor authentication
  --until-eof        end when standard input ends, as with whoever started this
  --help             this text

The first line on standard output is `listening on http://ADDRESS`. Ends on SIGINT and SIGTERM.";

struct Flags {
    listen: SocketAddr,
    any_address: bool,
    until_eof: bool,
}

fn flags(mut words: impl Iterator<Item = String>) -> Result<Option<Flags>, String> {
    let mut flags = Flags { listen: ([127, 0, 0, 1], PORT).into(), any_address: false, until_eof: false };
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        match (name.as_str(), value) {
            ("--listen", value) => {
                let value = value.or_else(|| words.next()).ok_or("--listen needs an address")?;
                flags.listen = address(&value)?;
            }
            ("--any-address", None) => flags.any_address = true,
            ("--until-eof", None) => flags.until_eof = true,
            ("--help" | "-h", None) => return Ok(None),
            (other, _) => return Err(format!("`{other}` is not known; see --help")),
        }
    }
    Ok(Some(flags))
}

/// An IP address and a port, or `localhost`; the port is etcd's when there is none.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost") {
        Some(port) if port.is_empty() || port.starts_with(':') => format!("127.0.0.1{port}"),
        _ => text.to_owned(),
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok((ip, PORT).into());
    }
    Err(format!(
        "--listen: `{text}` is not an address such as 127.0.0.1:2379 or [::1]:2379; ports are 0 to 65535"
    ))
}

/// The port of etcd's clients.
const PORT: u16 = 2379;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match flags(std::env::args().skip(1)) {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("sereno-embed: {why}");
            return ExitCode::from(2);
        }
    };
    match run(&flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("sereno-embed: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> Result<(), Box<dyn std::error::Error>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let server = Server::builder().listen(flags.listen).any_address(flags.any_address).start().await?;
    println!("listening on {}", server.endpoint());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = end_of_input(), if flags.until_eof => {}
    }
    server.stop().await;
    Ok(())
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 1024];
    while let Ok(count) = input.read(&mut bytes).await
        && count > 0
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_at_has_etcds_port_unless_it_names_another() {
        for (text, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1", "127.0.0.1:2379"),
            ("localhost", "127.0.0.1:2379"),
            ("localhost:99", "127.0.0.1:99"),
            ("::1", "[::1]:2379"),
            ("[::1]", "[::1]:2379"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for text in
            ["", "127.0.0.1:99999", "127.0.0.1:", "127.0.0.1:x", "http://127.0.0.1:1", "localhosts", "a b"]
        {
            assert!(address(text).is_err_and(|why| why.contains("is not an address")), "{text}");
        }
    }
}
