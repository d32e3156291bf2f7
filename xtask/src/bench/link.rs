//! Connections to the etcd under measurement.

use std::env;
use std::time::Duration;

use anyhow::Context;
use etcd_client::{ConnectOptions, DeleteOptions};
use sereno_core::{Client, Session};

/// No call may take longer: a bench ends, whatever happens.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What a process needs to call etcd in both ways.
#[derive(Clone)]
pub(super) struct Link {
    /// A session of ours.
    pub(super) session: Session,
    /// etcd-client as it comes, on a connection of its own.
    pub(super) raw: etcd_client::Client,
}

impl Link {
    /// Connects as `ETCD_ENDPOINTS` and `SERENO_NAMESPACE` say.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let client = Client::from_env().await?;
        let session = Session::open(&client).await?;
        let endpoints = env::var("ETCD_ENDPOINTS").context("ETCD_ENDPOINTS")?;
        let endpoints: Vec<&str> = endpoints.split(',').collect();
        let options = ConnectOptions::new().with_timeout(CALL_LIMIT);
        let raw = etcd_client::Client::connect(endpoints, Some(options)).await?;
        Ok(Self { session, raw })
    }

    /// A key for plain calls, in the same namespace as everything else.
    pub(super) fn key(&self, name: &str) -> Vec<u8> {
        let mut key = self.session.client().namespace().root().as_bytes().to_vec();
        key.extend_from_slice(name.as_bytes());
        key
    }

    /// Ends the session.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        Ok(self.session.close().await?)
    }

    /// Deletes everything the run has written.
    pub(super) async fn sweep(mut self) -> anyhow::Result<()> {
        let all = self.key("");
        self.raw.delete(all, Some(DeleteOptions::new().with_prefix())).await?;
        Ok(())
    }
}
