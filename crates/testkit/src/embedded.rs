//! A member as a server inside this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sereno_embed::Server;

use crate::engine;
use crate::spec::Spec;

const PATIENCE: Duration = Duration::from_secs(5);

/// A server that is killed when dropped. All its methods must run on the harness runtime, which is then what it lives on.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// Or why there is none.
    server: Result<Server, String>,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Paused,
    Ended,
}

impl Embedded {
    /// Starts one at that port. When it cannot have the port, it does not run, and its log says why.
    pub(crate) async fn start(spec: &Spec, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut builder = Server::builder().listen(address).min_lease_ttl(spec.min_lease_ttl());
        if let Some(bytes) = spec.quota_bytes {
            builder = builder.quota_bytes(bytes);
        }
        match builder.start().await {
            Ok(server) => Self { server: Ok(server), life: Life::Running },
            Err(error) => Self { server: Err(error.to_string()), life: Life::Ended },
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("only a server that has started is driven")
    }

    /// At the same address, with what it knew.
    pub(crate) async fn start_again(&mut self) {
        self.server().revive().await.expect("its address waits for a server that was killed");
        self.life = Life::Running;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life != Life::Ended
    }

    /// Every connection is reset and the port is closed. Works on a paused one.
    pub(crate) async fn kill(&mut self) {
        self.server().kill().await;
        self.life = Life::Ended;
    }

    pub(crate) fn set_paused(&mut self, wanted: bool) {
        match (self.life, wanted) {
            (Life::Running, true) => {
                self.server().freeze();
                self.life = Life::Paused;
            }
            (Life::Paused, false) => {
                self.server().thaw();
                self.life = Life::Running;
            }
            _ => {}
        }
    }

    /// Everything it knew is forgotten.
    pub(crate) fn wipe(&self) {
        self.server().wipe();
    }

    pub(crate) fn log(&self) -> String {
        match &self.server {
            Ok(_) => "an embedded server writes no log".to_owned(),
            Err(why) => why.clone(),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let server = std::mem::replace(&mut self.server, Err("it was dropped".to_owned()));
        if let Ok(server) = server {
            // Waited for, so that its port is closed afterwards. A graceful end would wait for clients that nobody has dropped yet.
            engine::block(PATIENCE, async move { server.kill().await });
        }
    }
}
