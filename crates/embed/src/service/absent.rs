//! Services that etcd has and this server has not: told apart from what no etcd has.

use tonic::{Code, Status};

/// The answer to a request for a path that no service here has.
pub(crate) fn absent(path: &str) -> Status {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if path == "/etcdserverpb.Auth/Authenticate" {
        // As every etcd says whose authentication has not been turned on.
        return Status::failed_precondition("etcdserver: authentication is not enabled");
    }
    let text = match service {
        "etcdserverpb.Auth" => {
            format!("sereno-embed has no authentication: {method} needs a real etcd")
        }
        "v3lockpb.Lock" | "v3electionpb.Election" => {
            format!("sereno-embed has no lock and election services: {service}/{method} needs a real etcd")
        }
        "etcdserverpb.KV"
        | "etcdserverpb.Watch"
        | "etcdserverpb.Lease"
        | "etcdserverpb.Cluster"
        | "etcdserverpb.Maintenance" => format!("unknown method {method} for service {service}"),
        _ => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(absent("/foo.Bar/Baz").message(), "unknown service foo.Bar");
        assert_eq!(absent("/etcdserverpb.KV/X").message(), "unknown method X for service etcdserverpb.KV");
        assert!(absent("/etcdserverpb.Auth/UserAdd").message().contains("UserAdd needs a real etcd"));
        let authenticate = absent("/etcdserverpb.Auth/Authenticate");
        assert_eq!(authenticate.code(), Code::FailedPrecondition);
        assert_eq!(authenticate.message(), "etcdserver: authentication is not enabled");
        assert!(absent("/v3lockpb.Lock/Lock").message().contains("Lock needs a real etcd"));
    }
}
