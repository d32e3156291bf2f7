//! A task that ends with its owner.

use sereno_core::CancellationToken;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Dropping it ends the task, in the background.
#[derive(Debug)]
pub(crate) struct Task {
    stop: CancellationToken,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<Self> {
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| Error::Socket(sereno_sp::Error::NoRuntime))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let handle = runtime.spawn(async move {
            tokio::select! {
                biased;
                () = stopped => {}
                () = work => {}
            }
        });
        Ok(Self { stop, handle: Mutex::new(Some(handle)) })
    }

    /// Ends it and waits until it has. Cancel safe; may be called again.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut handle = self.handle.lock().await;
        if let Some(task) = handle.as_mut() {
            // A task that panicked has ended, too.
            let _ = task.await;
            *handle = None;
        }
    }

    /// Waits until it is to end.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
