//! A raw client that sees etcd as it is, with none of our own code in between.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Permission, PutOptions, Txn, TxnOp,
};

/// A raw client for all of `endpoints`, with a timeout of 5 s per call.
///
/// # Panics
/// When an endpoint is not a URL. Nothing is dialled yet.
pub async fn raw<S: AsRef<str>>(endpoints: &[S]) -> Client {
    raw_with(endpoints, ConnectOptions::new()).await
}

/// As [`raw`], with TLS or credentials. With credentials this does dial, and panics when it fails.
pub async fn raw_with<S: AsRef<str>>(endpoints: &[S], options: ConnectOptions) -> Client {
    let limit = Duration::from_secs(5);
    let options = options.with_timeout(limit).with_connect_timeout(limit);
    Client::connect(endpoints, Some(options)).await.expect("the oracle client must connect")
}

/// What tests ask of a raw client, or do behind the back of the code under test. Every call panics when etcd refuses.
#[derive(Clone)]
pub struct Oracle {
    client: Client,
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle").finish_non_exhaustive()
    }
}

impl Oracle {
    /// An oracle over all of `endpoints`.
    pub async fn connect<S: AsRef<str>>(endpoints: &[S]) -> Self {
        Self { client: raw(endpoints).await }
    }

    /// As [`Oracle::connect`], with TLS or credentials.
    pub async fn connect_with<S: AsRef<str>>(endpoints: &[S], options: ConnectOptions) -> Self {
        Self { client: raw_with(endpoints, options).await }
    }

    /// The raw client, for everything this type has no name for.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Revokes a lease, as an operator or a bug would. False when there was no such lease.
    pub async fn revoke(&self, lease: i64) -> bool {
        match self.client().lease_revoke(lease).await {
            Ok(_) => true,
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("not found") => false,
            Err(error) => panic!("lease_revoke: {error}"),
        }
    }

    /// Ids of all leases there are, ascending.
    pub async fn leases(&self) -> Vec<i64> {
        let answer = self.client().leases().await.expect("leases");
        let mut ids: Vec<i64> = answer.leases().iter().map(etcd_client::LeaseStatus::id).collect();
        ids.sort_unstable();
        ids
    }

    /// Compacts the history up to now and returns that revision. A revision compacted before counts as done.
    ///
    /// From then on etcd refuses to tell what was before. It need not have freed the room yet: of a server that all tests
    /// share, waiting for that would be waiting for everyone's history.
    pub async fn compact_to_head(&self) -> i64 {
        let head = self.revision().await;
        match self.client().compact(head, None).await {
            Ok(_) => head,
            Err(etcd_client::Error::GRpcStatus(status))
                if status.message().contains("has been compacted") =>
            {
                head
            }
            Err(error) => panic!("compact: {error}"),
        }
    }

    /// Writes a key and returns the revision.
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> i64 {
        let answer = self.client().put(key, value, None).await.expect("put");
        answer.header().expect("a header").revision()
    }

    /// Writes a key bound to a lease and returns the revision.
    pub async fn put_with_lease(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        lease: i64,
    ) -> i64 {
        let options = PutOptions::new().with_lease(lease);
        let answer = self.client().put(key, value, Some(options)).await.expect("put");
        answer.header().expect("a header").revision()
    }

    /// Writes all of these keys in one transaction, on condition that none of them exists. Whether it did.
    pub async fn create(&self, entries: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> bool {
        let absent = entries.iter().map(|(key, _)| Compare::mod_revision(key.as_ref(), CompareOp::Equal, 0));
        let puts = entries.iter().map(|(key, value)| TxnOp::put(key.as_ref(), value.as_ref(), None));
        let txn = Txn::new().when(absent.collect::<Vec<_>>()).and_then(puts.collect::<Vec<_>>());
        self.client().txn(txn).await.expect("create").succeeded()
    }

    /// The value of a key, or `None`. Linearizable.
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Option<Vec<u8>> {
        let answer = self.client().get(key, None).await.expect("get");
        answer.kvs().first().map(|entry| entry.value().to_vec())
    }

    /// All keys under a prefix with their values, in key order. Linearizable.
    pub async fn range(&self, prefix: impl Into<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let options = GetOptions::new().with_prefix();
        let answer = self.client().get(prefix, Some(options)).await.expect("range");
        answer.kvs().iter().map(|entry| (entry.key().to_vec(), entry.value().to_vec())).collect()
    }

    /// Deletes a key. False when it was not there.
    pub async fn delete(&self, key: impl Into<Vec<u8>>) -> bool {
        self.client().delete(key, None).await.expect("delete").deleted() > 0
    }

    /// Deletes all keys under a prefix and returns how many there were.
    pub async fn delete_prefix(&self, prefix: impl Into<Vec<u8>>) -> i64 {
        let options = DeleteOptions::new().with_prefix();
        self.client().delete(prefix, Some(options)).await.expect("delete").deleted()
    }

    /// Number of keys under a prefix. Linearizable.
    pub async fn count_prefix(&self, prefix: impl Into<Vec<u8>>) -> i64 {
        let options = GetOptions::new().with_prefix().with_count_only();
        self.client().get(prefix, Some(options)).await.expect("count").count()
    }

    /// The store's revision. Linearizable.
    pub async fn revision(&self) -> i64 {
        let options = GetOptions::new().with_count_only();
        let answer = self.client().get("\0", Some(options)).await.expect("get");
        answer.header().expect("a header").revision()
    }

    /// Turns authentication on: `root` with `root_password`, and `user` who may read and write under `prefix` only.
    pub async fn enable_auth(&self, root_password: &str, user: &str, password: &str, prefix: &str) {
        let mut client = self.client();
        client.role_add("root").await.expect("role root");
        client.user_add("root", root_password, None).await.expect("user root");
        client.user_grant_role("root", "root").await.expect("role of root");
        let role = format!("{user}-role");
        client.role_add(role.as_str()).await.expect("role");
        let permission = Permission::read_write(prefix).with_prefix();
        client.role_grant_permission(role.as_str(), permission).await.expect("permission");
        client.user_add(user, password, None).await.expect("user");
        client.user_grant_role(user, role.as_str()).await.expect("role of the user");
        client.auth_enable().await.expect("auth enable");
    }
}

/// Turns authentication on at plain-HTTP endpoints; see [`Oracle::enable_auth`], which works with TLS too.
pub async fn enable_auth<S: AsRef<str>>(
    endpoints: &[S],
    root_password: &str,
    user: &str,
    password: &str,
    prefix: &str,
) {
    Oracle::connect(endpoints).await.enable_auth(root_password, user, password, prefix).await;
}
