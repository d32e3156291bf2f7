//! What etcd tells over plain HTTP on the same port: its version, its health, its metrics.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::engine::Engine;
use crate::faults::Call;
use crate::service::absent;
use crate::version::Version;

/// Adds the pages, and the answer to whatever has no page and no service.
pub(crate) fn pages(router: Router, engine: &Arc<Engine>) -> Router {
    let metrics_of = Arc::clone(engine);
    let version = version(engine);
    router
        .route(
            "/version",
            get(
                move || async move { json(format!(r#"{{"etcdserver":"{version}","etcdcluster":"3.5.0"}}"#)) },
            ),
        )
        .route("/health", get(|| async { json(r#"{"health":"true","reason":""}"#.to_owned()) }))
        .route("/metrics", get(move || async move { metrics(&metrics_of) }))
        .fallback(nothing)
}

fn version(engine: &Engine) -> Version {
    engine.with(|state, _| state.version)
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

async fn nothing(headers: HeaderMap, request: Request) -> Response {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc { absent(request.uri().path()).into_http() } else { StatusCode::NOT_FOUND.into_response() }
}

/// The metrics that tests of etcd clients look at, under etcd's names.
fn metrics(engine: &Engine) -> String {
    let mut text = format!("etcd_server_version{{server_version=\"{}\"}} 1\n", version(engine));
    let mut line = |name: &str, value: u64| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {value}");
    };
    engine.with(|state, _| {
        line("etcd_server_has_leader", 1);
        line("etcd_server_proposals_committed_total", state.proposals());
        line("etcd_server_proposals_applied_total", state.proposals());
        line("etcd_debugging_mvcc_keys_total", state.keys() as u64);
        line("etcd_debugging_mvcc_current_revision", u64::try_from(state.revision()).unwrap_or(0));
        line("etcd_debugging_mvcc_compact_revision", u64::try_from(state.compacted()).unwrap_or(0));
        line("etcd_debugging_mvcc_watch_stream_total", state.watch_streams() as u64);
        line("etcd_debugging_mvcc_watcher_total", state.watchers() as u64);
        line("etcd_debugging_mvcc_events_total", state.watch_events());
        line("etcd_debugging_lease_granted_total", state.leases_granted());
        line("etcd_debugging_lease_renewed_total", state.leases_renewed());
        line("etcd_mvcc_db_total_size_in_bytes", state.bytes());
    });
    for call in Call::KINDS {
        let (service, method) = names(call);
        let labels = format!("{{grpc_method=\"{method}\",grpc_service=\"etcdserverpb.{service}\"}}");
        // A stream counts once, as in etcd, whatever is asked on it.
        let started = match call {
            Call::Watch => engine.with(|state, _| state.watch_streams_opened()),
            _ => engine.counted(call),
        };
        line(&format!("grpc_server_started_total{labels}"), started);
    }
    if let Some(bytes) = resident_memory() {
        line("process_resident_memory_bytes", bytes);
    }
    text
}

fn names(call: Call) -> (&'static str, &'static str) {
    match call {
        Call::Range => ("KV", "Range"),
        Call::Put => ("KV", "Put"),
        Call::DeleteRange => ("KV", "DeleteRange"),
        Call::Txn => ("KV", "Txn"),
        Call::Compact => ("KV", "Compact"),
        Call::LeaseGrant => ("Lease", "LeaseGrant"),
        Call::LeaseRevoke => ("Lease", "LeaseRevoke"),
        Call::LeaseKeepAlive => ("Lease", "LeaseKeepAlive"),
        Call::LeaseTimeToLive => ("Lease", "LeaseTimeToLive"),
        Call::LeaseLeases => ("Lease", "LeaseLeases"),
        Call::Watch => ("Watch", "Watch"),
        Call::Maintenance | Call::Write | Call::Any => ("Maintenance", "Status"),
    }
}

/// Of the whole process, as the kernel counts it; `None` where it does not say so in this way.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
