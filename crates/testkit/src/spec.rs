//! What a member is started with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::ConnectOptions;

use crate::source::Source;
use crate::tls::{self, Identity, TlsMaterial};

/// TLS on the client port of a member.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls {
    pub(crate) server: Identity,
    pub(crate) ca_pem: String,
    pub(crate) ca_path: PathBuf,
    /// Set when clients must show a certificate; the one the harness shows.
    pub(crate) client: Option<Identity>,
    /// False for certificates that are wrong on purpose: readiness is then asked elsewhere.
    pub(crate) verifiable: bool,
}

impl ServerTls {
    pub(crate) fn new(material: &TlsMaterial, server: &Identity, mutual: bool, verifiable: bool) -> Self {
        Self {
            server: server.clone(),
            ca_pem: material.ca.cert_pem.clone(),
            ca_path: material.ca.cert_path.clone(),
            client: mutual.then(|| material.client.clone()),
            verifiable,
        }
    }
}

/// Options shared by every member of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) source: Option<Source>,
    pub(crate) fsync: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) election: Duration,
    pub(crate) token_ttl: Option<Duration>,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) flags: Vec<String>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            source: None,
            fsync: false,
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(500),
            token_ttl: None,
            quota_bytes: None,
            data_dir: None,
            tls: None,
            flags: Vec::new(),
        }
    }
}

/// Where one member is and what it calls itself.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    /// Where other members find it: its peer port, or a proxy before that.
    pub(crate) peer_url: String,
    pub(crate) metrics_port: u16,
    /// `name=peer-url` of every member, comma-separated.
    pub(crate) roll: String,
    pub(crate) token: String,
    pub(crate) data_dir: PathBuf,
}

impl Seat {
    pub(crate) fn endpoint(&self, spec: &Spec) -> String {
        let scheme = if spec.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    pub(crate) fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", self.metrics_port)
    }

    pub(crate) fn arguments(&self, spec: &Spec) -> Vec<String> {
        let client = self.endpoint(spec);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut list = Vec::new();
        let mut flag = |name: &str, value: &str| list.push(format!("--{name}={value}"));
        flag("name", &self.name);
        flag("data-dir", &text(&self.data_dir));
        flag("listen-client-urls", &client);
        flag("advertise-client-urls", &client);
        flag("listen-peer-urls", &peer);
        flag("initial-advertise-peer-urls", &self.peer_url);
        flag("initial-cluster", &self.roll);
        flag("initial-cluster-token", &self.token);
        flag("initial-cluster-state", "new");
        flag("listen-metrics-urls", &format!("http://{}", self.metrics_address()));
        flag("heartbeat-interval", &spec.heartbeat.as_millis().to_string());
        flag("election-timeout", &spec.election.as_millis().to_string());
        flag("logger", "zap");
        flag("log-level", "error");
        if !spec.fsync {
            flag("unsafe-no-fsync", "true");
        }
        if let Some(ttl) = spec.token_ttl {
            flag("auth-token-ttl", &ttl.as_secs().max(1).to_string());
        }
        if let Some(bytes) = spec.quota_bytes {
            flag("quota-backend-bytes", &bytes.to_string());
        }
        if let Some(tls) = &spec.tls {
            flag("cert-file", &text(&tls.server.cert_path));
            flag("key-file", &text(&tls.server.key_path));
            if tls.client.is_some() {
                flag("client-cert-auth", "true");
                flag("trusted-ca-file", &text(&tls.ca_path));
            }
        }
        list.extend(spec.flags.iter().cloned());
        list
    }
}

impl Spec {
    /// What this asks for that no embedded server has.
    pub(crate) fn beyond_embedded(&self) -> Vec<String> {
        let mut list = Vec::new();
        let mut unless = |absent: bool, what: &str| {
            if !absent {
                list.push(what.to_owned());
            }
        };
        unless(self.tls.is_none(), "TLS");
        unless(self.token_ttl.is_none(), "authentication");
        unless(!self.fsync, "disk");
        unless(self.data_dir.is_none(), "data directory");
        for flag in &self.flags {
            unless(false, flag);
        }
        list
    }

    /// The shortest lease that an etcd with these timings grants: one and a half election timeouts, in whole seconds.
    pub(crate) fn min_lease_ttl(&self) -> Duration {
        let shortest = self.election * 3 / 2;
        Duration::from_secs(shortest.as_secs() + u64::from(shortest.subsec_nanos() > 0))
    }

    /// Options with which the harness itself gets in, or none where the certificate is wrong on purpose.
    pub(crate) fn access(&self) -> Option<ConnectOptions> {
        match &self.tls {
            None => Some(ConnectOptions::new()),
            Some(tls) if tls.verifiable => Some(tls::options(&tls.ca_pem, tls.client.as_ref())),
            Some(_) => None,
        }
    }

    /// Folders outside the data directory that the member must be able to read.
    pub(crate) fn extra_folders(&self) -> Vec<PathBuf> {
        let file = self.tls.as_ref().map(|tls| tls.server.cert_path.clone());
        file.as_deref().and_then(Path::parent).map(Path::to_path_buf).into_iter().collect()
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_ask_for_nothing_that_an_embedded_server_lacks() {
        assert_eq!(Spec::default().beyond_embedded(), Vec::<String>::new());
        assert_eq!(Spec { quota_bytes: Some(1), ..Spec::default() }.beyond_embedded(), Vec::<String>::new());
    }

    #[test]
    fn everything_that_an_embedded_server_lacks_is_named() {
        let spec = Spec {
            fsync: true,
            token_ttl: Some(Duration::from_secs(1)),
            data_dir: Some("/data".into()),
            flags: vec!["--max-txn-ops=3".to_owned()],
            ..Spec::default()
        };
        let list = spec.beyond_embedded();
        assert_eq!(list, ["authentication", "disk", "data directory", "--max-txn-ops=3"]);
        let material = TlsMaterial::generate();
        let tls = Some(ServerTls::new(&material, &material.server, false, true));
        assert_eq!(Spec { tls, ..Spec::default() }.beyond_embedded(), ["TLS"]);
    }

    #[test]
    fn the_shortest_lease_is_one_and_a_half_election_timeouts_in_whole_seconds() {
        let shortest = |millis| {
            Spec { election: Duration::from_millis(millis), ..Spec::default() }.min_lease_ttl().as_secs()
        };
        assert_eq!([500, 666, 667, 1000, 2000].map(shortest), [1, 1, 2, 2, 3]);
    }
}
