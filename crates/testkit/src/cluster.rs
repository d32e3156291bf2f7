//! One member, or three that agree.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use futures_util::future::join_all;

use crate::member::Member;
use crate::oracle::Oracle;
use crate::proxy::Proxy;
use crate::source::Source;
use crate::spec::{Seat, ServerTls, Spec};
use crate::tls::{Identity, TlsMaterial};
use crate::{eventually, fresh_namespace, place};

/// A running cluster. Dropping it kills its members and deletes their data.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    /// One before the peer port of each member, if the cluster can be split.
    peers: Vec<Proxy>,
}

impl Cluster {
    /// Starts `size` members with the defaults and waits until each takes writes.
    pub async fn start(size: usize) -> Self {
        Self::builder().size(size).start().await
    }

    /// Options for a cluster: finish with [`Builder::start`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The client URLs of all members, in order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// The member of that index, from 0.
    #[must_use]
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// All members, in order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A raw client over all members.
    pub async fn oracle(&self) -> Oracle {
        Oracle::connect_with(&self.endpoints(), self.connect_options()).await
    }

    /// Options that let a raw client in: TLS where the cluster has it.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        self.members[0].connect_options()
    }

    /// Index of the leader: the member that says so and that most members agree on. Waits up to 20 s for there to be one.
    ///
    /// For up to an election timeout after the old leader was cut off, this can still be the old one: see
    /// [`Cluster::leader_other_than`].
    pub async fn leader(&self) -> usize {
        eventually(Duration::from_secs(60), "a leader", async || self.find_leader().await).await
    }

    /// As [`Cluster::leader`], waiting until it is another than `old`.
    pub async fn leader_other_than(&self, old: usize) -> usize {
        eventually(Duration::from_secs(60), "another leader", async || {
            self.find_leader().await.filter(|&leader| leader != old)
        })
        .await
    }

    async fn find_leader(&self) -> Option<usize> {
        let views = join_all(self.members.iter().map(view)).await;
        let leads = |index: &usize| {
            let Some(mine) = views[*index].as_ref() else { return false };
            let agrees = |view: &&View| view.term == mine.term && view.leader == mine.id;
            mine.leader == mine.id && views.iter().flatten().filter(agrees).count() * 2 > views.len()
        };
        (0..views.len()).find(leads)
    }

    /// Indices of all members but the leader, running or not.
    pub async fn followers(&self) -> Vec<usize> {
        let leader = self.leader().await;
        (0..self.members.len()).filter(|&index| index != leader).collect()
    }

    /// SIGKILLs the leader and returns its index. Does not wait for a successor.
    pub async fn kill_leader(&self) -> usize {
        let leader = self.leader().await;
        self.members[leader].kill().await;
        leader
    }

    /// Freezes the leader and returns its index. Does not wait for a successor.
    pub async fn pause_leader(&self) -> usize {
        let leader = self.leader().await;
        self.members[leader].pause().await;
        leader
    }

    /// SIGKILLs every member at once.
    pub async fn kill_all(&self) {
        join_all(self.members.iter().map(Member::kill)).await;
    }

    /// Starts every member that does not run and waits until each takes writes.
    pub async fn start_all(&self) {
        join_all(self.members.iter().map(Member::spawn)).await;
        join_all(self.members.iter().map(Member::wait_ready)).await;
    }

    /// Cuts one member off from the others, both ways, until [`Cluster::heal`]. Clients reach it as before.
    ///
    /// # Panics
    /// When the cluster was not built with [`Builder::splittable`].
    pub async fn isolate(&self, index: usize) {
        assert!(!self.peers.is_empty(), "only a cluster built as splittable can be split");
        let member = &self.members[index];
        let id = eventually(Duration::from_secs(60), "the member to tell its id", async || {
            view(member).await.map(|view| view.id)
        })
        .await;
        for (other, proxy) in self.peers.iter().enumerate() {
            if other == index {
                proxy.blackhole().await;
            } else {
                proxy.cut(BTreeSet::from([format!("{id:x}")]));
            }
        }
    }

    /// Ends [`Cluster::isolate`]. What was under way between the members arrives late, as after a real partition.
    pub async fn heal(&self) {
        for proxy in &self.peers {
            proxy.cut(BTreeSet::new());
            proxy.pass().await;
        }
    }

    /// Stops and starts one member after the other, each ready again before the next.
    pub async fn rolling_restart(&self) {
        for member in &self.members {
            member.restart().await;
        }
    }

    /// As [`Cluster::rolling_restart`], with SIGKILL instead of a graceful stop.
    pub async fn rolling_kill(&self) {
        for member in &self.members {
            member.kill().await;
            member.start().await;
        }
    }
}

/// What a member says about itself and its leader.
struct View {
    id: u64,
    leader: u64,
    term: u64,
}

async fn view(member: &Member) -> Option<View> {
    let limit = Duration::from_millis(500);
    let options = member.connect_options().with_connect_timeout(limit).with_timeout(limit);
    let mut client = Client::connect([member.endpoint()], Some(options)).await.ok()?;
    let status = tokio::time::timeout(limit, client.status()).await.ok()?.ok()?;
    Some(View { id: status.header()?.member_id(), leader: status.leader(), term: status.raft_term() })
}

/// Options for members, shared by all of a cluster. Defaults: one member, no fsync, heartbeat 50 ms, election timeout
/// 500 ms, no TLS, data in a temporary folder in memory, and the etcd that [`Source::from_env`] finds.
///
/// An embedded server ([`Source::Embed`]) is one member with timings and a quota. Whatever else is asked of it is a panic that
/// says so: tests that do ask have the attribute `#[ignore = "needs a real etcd: …"]`.
#[derive(Debug, Clone)]
pub struct Builder {
    size: usize,
    splittable: bool,
    spec: Spec,
}

impl Default for Builder {
    fn default() -> Self {
        Self { size: 1, splittable: false, spec: Spec::default() }
    }
}

impl Builder {
    /// Number of members. Default 1.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Puts a proxy before each member's peer port, so that [`Cluster::isolate`] works. Default false.
    #[must_use]
    pub fn splittable(mut self) -> Self {
        self.splittable = true;
        self
    }

    /// Another etcd than the environment asks for.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.spec.source = Some(source);
        self
    }

    /// One more flag, as on the command line: `--snapshot-count=100`.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.spec.flags.push(flag.into());
        self
    }

    /// Several more flags.
    #[must_use]
    pub fn flags<S: Into<String>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.spec.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Heartbeat interval and election timeout. Default 50 ms and 500 ms.
    ///
    /// The shortest lease a member grants is one and a half election timeouts, rounded up to seconds.
    #[must_use]
    pub fn timings(mut self, heartbeat: Duration, election: Duration) -> Self {
        self.spec.heartbeat = heartbeat;
        self.spec.election = election;
        self
    }

    /// Whether writes reach the disk before they are acknowledged. Default false: SIGKILL loses nothing either way.
    #[must_use]
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.spec.fsync = fsync;
        self
    }

    /// Life of an authentication token, in whole seconds, at least one.
    #[must_use]
    pub fn auth_token_ttl(mut self, ttl: Duration) -> Self {
        self.spec.token_ttl = Some(ttl);
        self
    }

    /// Size at which the store refuses writes.
    #[must_use]
    pub fn quota_backend_bytes(mut self, bytes: u64) -> Self {
        self.spec.quota_bytes = Some(bytes);
        self
    }

    /// Keeps the data under `folder` (a folder per member), and leaves it there at the end.
    #[must_use]
    pub fn data_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.spec.data_dir = Some(folder.as_ref().to_path_buf());
        self
    }

    /// TLS on the client port, with the good server certificate. The material must outlive the cluster.
    #[must_use]
    pub fn tls(mut self, material: &TlsMaterial) -> Self {
        self.spec.tls = Some(ServerTls::new(material, &material.server, false, true));
        self
    }

    /// As [`Builder::tls`], and clients must show a certificate signed by `material.ca`.
    #[must_use]
    pub fn mtls(mut self, material: &TlsMaterial) -> Self {
        self.spec.tls = Some(ServerTls::new(material, &material.server, true, true));
        self
    }

    /// TLS with a server certificate no client should accept, such as `material.expired_server`.
    ///
    /// [`Member::oracle`] and [`Cluster::leader`] do not work on such a cluster.
    #[must_use]
    pub fn bad_tls(mut self, material: &TlsMaterial, server: &Identity) -> Self {
        self.spec.tls = Some(ServerTls::new(material, server, false, false));
        self
    }

    /// Starts the members and waits until each takes writes.
    ///
    /// # Panics
    /// When that fails three times (another process may take a port between our look and our use), with the log.
    pub async fn start(self) -> Cluster {
        let source = match self.spec.source.clone() {
            Some(source) => source,
            None => Source::from_env().await,
        };
        if source == Source::Embed {
            self.must_do_with_embedded();
        }
        let mut failures = Vec::new();
        for _ in 0..3 {
            let (members, peers) = self.seat(&source).await;
            join_all(members.iter().map(Member::spawn)).await;
            let results = join_all(members.iter().map(Member::ready)).await;
            match results.into_iter().find_map(Result::err) {
                None => return Cluster { members, peers },
                Some(why) => failures.push(why),
            }
        }
        panic!("no cluster of {} after three attempts:\n{}", self.size, failures.join("\n---\n"));
    }

    /// Starts a single member, whatever size was set.
    pub async fn start_one(self) -> Member {
        let mut cluster = self.size(1).start().await;
        cluster.members.remove(0)
    }

    fn must_do_with_embedded(&self) {
        let mut beyond = self.spec.beyond_embedded();
        if self.size != 1 {
            beyond.push(format!("{} members", self.size));
        }
        if self.splittable {
            beyond.push("wires between members".to_owned());
        }
        assert!(
            beyond.is_empty(),
            "this needs a real etcd, for the embedded server has no {}: install etcd or start Docker, and see \
             `cargo xtask test`",
            beyond.join(", no ")
        );
    }

    async fn seat(&self, source: &Source) -> (Vec<Member>, Vec<Proxy>) {
        let token = fresh_namespace("token");
        let ports: Vec<u16> = (0..self.size).map(|_| place::port()).collect();
        let mut urls: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let mut proxies = Vec::new();
        if self.splittable {
            proxies = join_all(urls.iter().map(Proxy::to)).await;
            urls = proxies.iter().map(Proxy::endpoint).collect();
        }
        let roll: Vec<String> =
            urls.iter().enumerate().map(|(index, url)| format!("m{index}={url}")).collect();
        let seats = urls.into_iter().zip(ports).enumerate().map(|(index, (peer_url, peer_port))| Seat {
            name: format!("m{index}"),
            peer_port,
            peer_url,
            client_port: place::port(),
            metrics_port: place::port(),
            roll: roll.join(","),
            token: token.clone(),
            // Set when the member has its folder.
            data_dir: std::path::PathBuf::new(),
        });
        (seats.map(|seat| Member::new(source.clone(), self.spec.clone(), seat)).collect(), proxies)
    }
}
