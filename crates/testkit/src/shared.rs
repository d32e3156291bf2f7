//! One etcd for all tests of a process that need merely *an* etcd.

use std::env;

use tokio::sync::OnceCell;

use crate::member::Member;

/// Endpoints of an etcd that other tests use too: work under a [`fresh_namespace`], and break nothing.
///
/// `ETCD_ENDPOINTS` (comma-separated URLs) if set; otherwise one member, started on first use and removed when the test
/// process ends, however it ends.
///
/// # Panics
/// When there is no etcd to be had.
pub async fn shared() -> Vec<String> {
    static MEMBER: OnceCell<Member> = OnceCell::const_new();
    let given = env::var("ETCD_ENDPOINTS").unwrap_or_default();
    let given: Vec<String> =
        given.split(',').map(str::trim).filter(|url| !url.is_empty()).map(with_scheme).collect();
    if !given.is_empty() {
        return given;
    }
    vec![MEMBER.get_or_init(Member::single).await.endpoint()]
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// A namespace nobody else uses: `test_name`, a dash, and 64 random bits in hexadecimal.
#[must_use]
pub fn fresh_namespace(test_name: &str) -> String {
    format!("{test_name}-{:016x}", rand::random::<u64>())
}
