//! Leases: how long each still lives, and which keys die with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveResponse, PbLeaseLeasesResponse,
    PbLeaseRevokeResponse, PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};

use super::refusal::Refusal;
use super::state::State;

/// The longest time to live, in seconds.
const MAX_TTL: i64 = 9_000_000_000;

/// When the next lease runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// At this time of the server's clock.
    At(Duration),
    /// There is none, or none can now.
    Never,
}

#[derive(Debug)]
struct Lease {
    ttl: i64,
    expires: Duration,
    keys: BTreeSet<Vec<u8>>,
}

impl Lease {
    fn remaining(&self, now: Duration) -> i64 {
        i64::try_from(self.expires.saturating_sub(now).as_secs()).unwrap_or(i64::MAX)
    }
}

/// All leases there are.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    all: BTreeMap<i64, Lease>,
    /// The same, by when they run out.
    queue: BTreeSet<(Duration, i64)>,
    min_ttl: i64,
    granted: u64,
    renewed: u64,
    /// While nobody could revoke them: no leader, or no server.
    suspended: bool,
    /// While the server is frozen.
    paused: bool,
    last_id: i64,
}

impl Leases {
    pub(super) fn new(min_ttl: Duration) -> Self {
        Self { min_ttl: i64::try_from(min_ttl.as_secs()).unwrap_or(MAX_TTL).max(1), ..Self::default() }
    }

    pub(super) fn knows(&self, id: i64) -> bool {
        self.all.contains_key(&id)
    }

    pub(super) fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.all.get_mut(&id)
            && !lease.keys.contains(key)
        {
            lease.keys.insert(key.to_vec());
        }
    }

    pub(super) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.all.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    fn set_expiry(&mut self, id: i64, expires: Duration) {
        if let Some(lease) = self.all.get_mut(&id) {
            self.queue.remove(&(lease.expires, id));
            lease.expires = expires;
            self.queue.insert((expires, id));
        }
    }

    fn remove(&mut self, id: i64) -> Option<Lease> {
        let lease = self.all.remove(&id)?;
        self.queue.remove(&(lease.expires, id));
        Some(lease)
    }

    /// An id that etcd could have chosen: positive, and not in use.
    fn next_id(&mut self, seed: u64) -> i64 {
        loop {
            // Ids look random, and are the same again in a run that is repeated.
            self.last_id = self.last_id.wrapping_add(1);
            let mixed = (self.last_id as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let id = i64::try_from(mixed >> 1).unwrap_or(1);
            if id != 0 && !self.knows(id) {
                return id;
            }
        }
    }
}

impl State {
    pub(crate) fn leases(&self) -> usize {
        self.leases.all.len()
    }

    pub(crate) fn leases_granted(&self) -> u64 {
        self.leases.granted
    }

    pub(crate) fn leases_renewed(&self) -> u64 {
        self.leases.renewed
    }

    pub(crate) fn next_expiry(&self) -> Expiry {
        match self.leases.queue.first() {
            Some((at, _)) if !self.leases.suspended && !self.leases.paused => Expiry::At(*at),
            _ => Expiry::Never,
        }
    }

    /// Ends the leases whose time is up.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Expiry::At(at) = self.next_expiry()
            && at <= now
        {
            let Some((_, id)) = self.leases.queue.first().copied() else { return };
            self.end_lease(id);
        }
    }

    /// Stops leases from running out.
    pub(crate) fn suspend_leases(&mut self) {
        self.leases.suspended = true;
    }

    /// Lets them run out again, each with its whole time before it, as etcd does after a change of leader.
    pub(crate) fn resume_leases(&mut self, now: Duration) {
        if !std::mem::take(&mut self.leases.suspended) {
            return;
        }
        let all: Vec<(i64, i64)> = self.leases.all.iter().map(|(id, lease)| (*id, lease.ttl)).collect();
        for (id, ttl) in all {
            self.leases.set_expiry(id, now.saturating_add(seconds(ttl)));
        }
    }

    /// Stops leases from ending, though their time goes on.
    pub(crate) fn pause_leases(&mut self) {
        self.leases.paused = true;
    }

    /// Ends [`State::pause_leases`].
    pub(crate) fn unpause_leases(&mut self) {
        self.leases.paused = false;
    }

    /// Takes over from a store that is being replaced whether leases can end.
    pub(crate) fn keep_suspension(&mut self, from: &Self) {
        (self.leases.suspended, self.leases.paused) = (from.leases.suspended, from.leases.paused);
    }

    pub(crate) fn lease_grant(
        &mut self,
        request: &PbLeaseGrantRequest,
        now: Duration,
    ) -> Result<PbLeaseGrantResponse, Refusal> {
        if request.ttl > MAX_TTL {
            return Err(Refusal::LEASE_TTL_TOO_LARGE);
        }
        self.quota.admit(0)?;
        self.propose();
        let id = match request.id {
            0 => self.leases.next_id(self.identity.cluster),
            id if self.leases.knows(id) => return Err(Refusal::LEASE_EXISTS),
            id => id,
        };
        let ttl = request.ttl.max(self.leases.min_ttl);
        let expires = now.saturating_add(seconds(ttl));
        self.leases.all.insert(id, Lease { ttl, expires, keys: BTreeSet::new() });
        self.leases.queue.insert((expires, id));
        self.leases.granted += 1;
        Ok(PbLeaseGrantResponse { header: Some(self.header()), id, ttl, error: String::new() })
    }

    pub(crate) fn lease_revoke(&mut self, id: i64) -> Result<PbLeaseRevokeResponse, Refusal> {
        if !self.end_lease(id) {
            return Err(Refusal::LEASE_NOT_FOUND);
        }
        Ok(PbLeaseRevokeResponse { header: Some(self.header()) })
    }

    /// Removes a lease and, in one revision, its keys. False when there is no such lease.
    pub(crate) fn end_lease(&mut self, id: i64) -> bool {
        self.propose();
        let Some(lease) = self.leases.remove(id) else { return false };
        let revision = self.revision + 1;
        let mut changes = 0;
        for key in &lease.keys {
            if let Some(old) = self.index.get(key).cloned() {
                self.delete(&old, revision);
                changes += 1;
            }
        }
        self.commit(changes);
        true
    }

    /// Ends all leases, each in a revision of its own, and returns how many there were.
    pub(crate) fn end_all_leases(&mut self) -> usize {
        self.end_leases(|_| true)
    }

    /// Ends the lease of the session whose epoch has this id. False when there is none.
    pub(crate) fn end_session(&mut self, epoch: &str) -> bool {
        self.end_leases(|lease| lease.keys.iter().any(|key| session_of(key) == Some(epoch.as_bytes()))) > 0
    }

    /// Ends the leases of all sessions, each in a revision of its own, and returns how many there were.
    pub(crate) fn end_all_sessions(&mut self) -> usize {
        self.end_leases(|lease| lease.keys.iter().any(|key| session_of(key).is_some()))
    }

    fn end_leases(&mut self, chosen: impl Fn(&Lease) -> bool) -> usize {
        let ids: Vec<i64> =
            self.leases.all.iter().filter(|(_, lease)| chosen(lease)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.end_lease(*id);
        }
        ids.len()
    }

    /// The id of the n-th lease, counted round.
    pub(crate) fn nth_lease(&self, n: usize) -> Option<i64> {
        let count = self.leases.all.len();
        self.leases.all.keys().nth(n.checked_rem(count)?).copied()
    }

    /// Renews a lease. A time of 0 in the answer says that there is none.
    pub(crate) fn lease_keep_alive(&mut self, id: i64, now: Duration) -> PbLeaseKeepAliveResponse {
        let ttl = self.leases.all.get(&id).map_or(0, |lease| lease.ttl);
        self.leases.renewed += u64::from(ttl > 0);
        self.leases.set_expiry(id, now.saturating_add(seconds(ttl)));
        PbLeaseKeepAliveResponse { header: Some(self.header()), id, ttl }
    }

    pub(crate) fn lease_time_to_live(
        &self,
        request: &PbLeaseTimeToLiveRequest,
        now: Duration,
    ) -> PbLeaseTimeToLiveResponse {
        let header = Some(self.header());
        let id = request.id;
        match self.leases.all.get(&id) {
            None => PbLeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() },
            Some(lease) => {
                let keys = if request.keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
                let ttl = lease.remaining(now);
                PbLeaseTimeToLiveResponse { header, id, ttl, granted_ttl: lease.ttl, keys }
            }
        }
    }

    pub(crate) fn lease_list(&self) -> PbLeaseLeasesResponse {
        let leases = self.leases.queue.iter().map(|(_, id)| PbLeaseStatus { id: *id }).collect();
        PbLeaseLeasesResponse { header: Some(self.header()), leases }
    }
}

/// The id of the epoch whose session key this is: sereno-core writes it as `<namespace>/.s/<id>`, and no recipe's name can
/// be `.s`, because a leading dot is escaped.
fn session_of(key: &[u8]) -> Option<&[u8]> {
    let slash = key.iter().rposition(|byte| *byte == b'/')?;
    let (path, id) = key.split_at_checked(slash)?;
    path.ends_with(b"/.s").then_some(id.get(1..)?)
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
