//! How to register.

use std::time::Duration;

/// Options of [`Registry::with_options`](crate::Registry::with_options) and [`Registry::open`](crate::Registry::open).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// The subtree below which `services/` and `services_infos/` are, such as `/prod`. Default: `/`, as etcd-discovery
    /// has it.
    pub root: String,
    /// How long hosts outlive a process that died: the time to live of the session that [`Registry::open`](crate::Registry::open)
    /// opens. Default: 5 s, at least 1 s, in whole seconds (rounded up). Without meaning for a registry on a session of the caller's.
    pub ttl: Duration,
    /// How long a registration may take to be made at first; then it is given up with [`Error::StartUp`](crate::Error::StartUp).
    /// It does not limit how long it lives. Default: 5 minutes.
    pub start_within: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { root: "/".into(), ttl: Duration::from_secs(5), start_within: Duration::from_secs(300) }
    }
}

impl RegistryOptions {
    /// Sets [`RegistryOptions::root`].
    #[must_use]
    pub fn root(mut self, root: impl Into<String>) -> Self {
        self.root = root.into();
        self
    }

    /// Sets [`RegistryOptions::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets [`RegistryOptions::start_within`].
    #[must_use]
    pub fn start_within(mut self, within: Duration) -> Self {
        self.start_within = within;
        self
    }
}
