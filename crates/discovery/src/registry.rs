//! The registry: where hosts are registered.

use std::sync::Arc;

use sereno_core::{Client, Session, SessionOptions, pace};

use crate::board::Board;
use crate::defaults;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::keys::Keys;
use crate::options::RegistryOptions;
use crate::registration::Registration;
use crate::worker::{self, Task};

/// Registers hosts of services. Clones are the same registry.
///
/// All its registrations live on one session: one lease and no write per heartbeat, however many they are.
#[derive(Clone, Debug)]
pub struct Registry {
    home: Arc<crate::home::Home>,
    options: RegistryOptions,
}

impl Registry {
    /// A registry on a session, with default options. No I/O.
    pub fn new(session: &Session) -> Self {
        Self::with_options(session, RegistryOptions::default())
    }

    /// As [`Registry::new`], with options. No I/O.
    pub fn with_options(session: &Session, options: RegistryOptions) -> Self {
        Self { home: Arc::new(crate::home::Home::of(session)), options }
    }

    /// A registry with a session of its own, which is opened in the background by the first registration, as soon as etcd is
    /// there: a service can start before etcd does. No I/O. The session lives as long as the registry, its clones and
    /// its registrations do, or until [`Registry::close`].
    pub fn open(client: &Client, options: RegistryOptions) -> Self {
        let session = SessionOptions::default().ttl(options.ttl);
        Self { home: Arc::new(crate::home::Home::later(client, session)), options }
    }

    /// The client it stands on.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.home.client()
    }

    /// The session it stands on; `None` while that has not been opened.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.home.session()
    }

    /// Registers a host of a service, and keeps it registered until the [`Registration`] is stopped or dropped, or the
    /// session is closed. Returns at once; [`Registration::ready`] tells when it is there. In the background: one to two
    /// RPCs for the service's record, one for the host, one to follow the record; none to keep them.
    ///
    /// What the host does not say is filled in as etcd-discovery does: a private host without a private hostname has its
    /// hostname for one; whoever still has none has the machine's (`HOSTNAME`, else the system's); who has no
    /// private ports has `ports`; the name of the service is overwritten. Its `uuid` is a new random UUID, a hyphen and the
    /// private hostname.
    ///
    /// # Errors
    /// [`Error::InvalidHost`]; names that are empty or too long; a host whose JSON is larger than 64 KiB; options that make no
    /// sense; a closed session. Nothing was sent then. [`sereno_core::Error::Stopped`] outside of a tokio runtime.
    pub fn register(&self, service: &str, host: Host) -> Result<Registration> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| sereno_core::Error::Stopped)?;
        if self.options.ttl < std::time::Duration::from_secs(1) {
            let reason = "leases have whole seconds, at least 1 s".into();
            return Err(Error::InvalidOption { option: "ttl", reason });
        }
        let keys = Keys::new(&self.options.root)
            .map_err(|error| Error::InvalidOption { option: "root", reason: error.to_string() })?;
        let mut host = defaults::complete(host, service, defaults::machine)?;
        host.uuid = defaults::uuid(&host);
        defaults::check(&host)?;
        let (key, info) = (keys.host(service, &host.uuid)?, keys.info(service)?);
        if self.home.is_closed() {
            return Err(self.home.over().into());
        }
        let uuid = host.uuid.clone();
        let board = Arc::new(Board::new(host));
        let within = self.options.start_within;
        let task = Task { board: board.clone(), key, info, within, deadline: pace::now() + within };
        match self.home.session() {
            Some(session) => worker::start(task, session),
            None => {
                let opening = worker::open(task, self.home.clone());
                runtime.spawn(opening);
            }
        }
        Ok(Registration::new(service.to_owned(), uuid, board, self.client().deadline()))
    }

    /// Ends the session that [`Registry::open`] has opened, in order: every registration is stopped, the lease is revoked.
    /// Does nothing to a session of the caller's. May be called more than once; ends within the client's deadline with etcd gone.
    ///
    /// # Errors
    /// As [`Session::close`].
    ///
    /// # Cancel safety
    /// Once polled, closing goes on in the background when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        Ok(self.home.close().await?)
    }
}
