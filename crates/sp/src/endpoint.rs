//! Listening and dialling: how connections come to be, and come to be again.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::address::Address;
use crate::conn;
use crate::engine::{Engine, Seat};
use crate::error::Result;
use crate::role::Role;
use crate::stats::Refusal;
use crate::transport::{self, Listener, Raw};

/// The first and the longest wait of a listener that cannot accept, because there are too many open files.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

pub(crate) async fn listen<R: Role>(engine: &Arc<Engine<R>>, address: Address) -> Result<Address> {
    engine.check_endpoint(&address)?;
    let (listener, address, name) = Listener::bind(&address, &engine.options, engine.role.ours()).await?;
    tracing::debug!(%address, "listening");
    let work = accept(Arc::clone(engine), listener, address.clone());
    engine.add_endpoint(address.clone(), true, name, work)?;
    Ok(address)
}

pub(crate) fn dial<R: Role>(engine: &Arc<Engine<R>>, address: Address) -> Result<()> {
    engine.check_endpoint(&address)?;
    transport::check_dial(&address, &engine.options)?;
    engine.add_endpoint(address.clone(), false, transport::Name::None, redial(Arc::clone(engine), address))
}

/// Accepts for ever. Owns the connections: they end with it.
async fn accept<R: Role>(engine: Arc<Engine<R>>, mut listener: Listener, address: Address) {
    let mut connections = JoinSet::new();
    let mut pause = PAUSE.0;
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(&engine.options) => match accepted {
                Ok((raw, from)) => {
                    pause = PAUSE.0;
                    let Some(seat) = engine.seat(false) else {
                        engine.refuse(from, Refusal::TooMany);
                        continue;
                    };
                    let serving = serve(Arc::clone(&engine), raw, from, address.clone(), seat);
                    connections.spawn(engine.tasks().track_future(serving));
                }
                // Whoever it was is gone; the listener is well.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%address, %error, "cannot accept for now");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }
}

async fn serve<R: Role>(engine: Arc<Engine<R>>, raw: Raw, from: String, endpoint: Address, _seat: Seat<R>) {
    match greet(&engine, raw).await {
        Ok(pipe) => {
            if let Some(mut entered) = engine.enter(from, endpoint, false) {
                conn::run(&mut entered, pipe).await;
            }
        }
        Err(why) => engine.refuse(from, why),
    }
}

/// The handshake, within its time.
async fn greet<R: Role>(engine: &Engine<R>, raw: Raw) -> Result<conn::Pipe, Refusal> {
    timeout(engine.options.handshake, conn::handshake(engine, raw))
        .await
        .unwrap_or(Err(Refusal::HandshakeTimeout))
}

/// Keeps one connection to an address, for ever.
async fn redial<R: Role>(engine: Arc<Engine<R>>, address: Address) {
    let first = engine.options.reconnect_first.max(Duration::from_millis(1));
    let most = engine.options.reconnect_max.max(first);
    let mut wait = first;
    loop {
        let begun = Instant::now();
        let up = attempt(&engine, &address).await;
        // A connection that lasted shows that all is well; one that breaks at once is no better than none.
        if up && begun.elapsed() >= wait {
            wait = first;
        }
        let part = rand::rng().random_range(0.5..=1.0);
        sleep(wait.mul_f64(part)).await;
        wait = (wait * 2).min(most);
    }
}

/// Connects once and stays with it until it ends. Returns whether there was a connection.
async fn attempt<R: Role>(engine: &Arc<Engine<R>>, address: &Address) -> bool {
    let connecting = transport::connect(address, &engine.options, engine.role.ours());
    let (raw, to) = match timeout(engine.options.handshake, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            engine.dial_failed(address, error.to_string());
            return false;
        }
        Err(_) => {
            engine.dial_failed(address, format!("no connection within {:?}", engine.options.handshake));
            return false;
        }
    };
    let _seat = engine.seat(true);
    match greet(engine, raw).await {
        Ok(pipe) => {
            // Before anybody is told of the connection.
            engine.dial_succeeded(address);
            let Some(mut entered) = engine.enter(to, address.clone(), true) else { return false };
            conn::run(&mut entered, pipe).await;
            true
        }
        Err(why) => {
            engine.refuse(to, why);
            false
        }
    }
}
