//! How to read.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Options of [`Directory::with_options`](crate::Directory::with_options).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DirectoryOptions {
    /// Below which key services are kept: `/`, or segments such as `/prod`. Default: `/`, where etcd-discovery keeps
    /// them.
    pub root: String,
    /// For how long a view still answers when etcd is not heard of any more; after that its lookups fail with
    /// [`Error::Stale`](crate::Error::Stale). At least 5 s. Default: 10 min.
    pub serve_stale_for: Duration,
    /// The folder in which views are kept, for a process that starts while etcd is away. The files hold the hosts'
    /// passwords, and only their owner may read them (on Unix). Default: none.
    pub cache_dir: Option<PathBuf>,
    /// How much time lies at least between two writings of a view to [`cache_dir`](Self::cache_dir). At least 100 ms.
    /// Default: 5 s.
    pub cache_every: Duration,
    /// How many hosts of one service are taken; the others are counted and reported. Default: 20,000.
    pub max_hosts: usize,
    /// How many events one stream of changes may lag behind before it gets a
    /// [`Resync`](crate::Change::Resync) instead. At least 1. Default: 1024.
    pub backlog: usize,
    /// What to do when many hosts go at once; `None` removes each at once. Default: [`GuardOptions::default`].
    pub guard: Option<GuardOptions>,
}

/// When many hosts end at once, it is more likely that their leases ended for a reason of etcd's than that all of them
/// died. The guard removes as many as its share within a window, and holds the others back for some time: they stay in
/// the view, unless they turn out to be registered again.
///
/// A host that was draining when it went is a clean stop: it is neither counted nor held.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GuardOptions {
    /// The share of the hosts, from 0 to 1, that may go within a window. Default: 0.15.
    pub share: f64,
    /// So many hosts have to go within a window, at least, before any is held. Default: 3.
    pub at_least: usize,
    /// How long a removal counts. Default: 10 s.
    pub window: Duration,
    /// How long a host is held. It does not run out while etcd is not heard. Default: 60 s.
    pub hold: Duration,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            root: "/".into(),
            serve_stale_for: Duration::from_secs(600),
            cache_dir: None,
            cache_every: Duration::from_secs(5),
            max_hosts: 20_000,
            backlog: 1024,
            guard: Some(GuardOptions::default()),
        }
    }
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self { share: 0.15, at_least: 3, window: Duration::from_secs(10), hold: Duration::from_secs(60) }
    }
}

impl DirectoryOptions {
    /// Sets [`DirectoryOptions::root`].
    #[must_use]
    pub fn root(mut self, root: impl Into<String>) -> Self {
        self.root = root.into();
        self
    }

    /// Sets [`DirectoryOptions::serve_stale_for`].
    #[must_use]
    pub fn serve_stale_for(mut self, time: Duration) -> Self {
        self.serve_stale_for = time;
        self
    }

    /// Sets [`DirectoryOptions::cache_dir`].
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// Sets [`DirectoryOptions::cache_every`].
    #[must_use]
    pub fn cache_every(mut self, time: Duration) -> Self {
        self.cache_every = time;
        self
    }

    /// Sets [`DirectoryOptions::max_hosts`].
    #[must_use]
    pub fn max_hosts(mut self, hosts: usize) -> Self {
        self.max_hosts = hosts;
        self
    }

    /// Sets [`DirectoryOptions::backlog`].
    #[must_use]
    pub fn backlog(mut self, events: usize) -> Self {
        self.backlog = events;
        self
    }

    /// Sets [`DirectoryOptions::guard`].
    #[must_use]
    pub fn guard(mut self, guard: impl Into<Option<GuardOptions>>) -> Self {
        self.guard = guard.into();
        self
    }

    /// What of it makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.into() });
        if self.serve_stale_for < Duration::from_secs(5) {
            return invalid("serve_stale_for", "less than 5 s");
        }
        if self.cache_every < Duration::from_millis(100) {
            return invalid("cache_every", "less than 100 ms");
        }
        if self.backlog == 0 {
            return invalid("backlog", "less than 1");
        }
        if self.guard.as_ref().is_some_and(|guard| !(0.0..=1.0).contains(&guard.share)) {
            return invalid("guard", "its share is not from 0 to 1");
        }
        Ok(())
    }
}

impl GuardOptions {
    /// Sets [`GuardOptions::share`].
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets [`GuardOptions::at_least`].
    #[must_use]
    pub fn at_least(mut self, hosts: usize) -> Self {
        self.at_least = hosts;
        self
    }

    /// Sets [`GuardOptions::window`].
    #[must_use]
    pub fn window(mut self, time: Duration) -> Self {
        self.window = time;
        self
    }

    /// Sets [`GuardOptions::hold`].
    #[must_use]
    pub fn hold(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        let default = DirectoryOptions::default;
        assert!(default().check().is_ok() && default().guard(None).check().is_ok());
        for (options, name) in [
            (default().serve_stale_for(Duration::ZERO), "serve_stale_for"),
            (default().cache_every(Duration::ZERO), "cache_every"),
            (default().backlog(0), "backlog"),
            (default().guard(GuardOptions::default().share(f64::NAN)), "guard"),
            (default().guard(GuardOptions::default().share(1.5)), "guard"),
        ] {
            let refused = options.check().unwrap_err();
            assert!(matches!(refused, Error::InvalidOption { option, .. } if option == name), "{refused:?}");
        }
    }
}
