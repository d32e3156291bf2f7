//! What an error of the wire means: the one table that tells "not applied" from "perhaps applied".
//!
//! Whatever is not known to be definite is ambiguous. A write that was wrongly called "not applied" gets sent twice by
//! its caller; one that was wrongly called ambiguous costs a read.

use std::error::Error as _;

use tonic::{Code, Status};

use crate::error::{Cause, Error};

/// What to do about a failed call.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It never reached the server: any call may be sent again, to another member.
    NotSent(Cause),
    /// The TLS handshake failed: never reached the server, and will not without other certificates.
    Tls(Cause),
    /// The member answered that it has no leader: not applied, another member may do better.
    NoLeader(Cause),
    /// The token has expired or is unknown to this member: not applied; authenticate and send it once more.
    StaleToken(Cause),
    /// The answer was larger than the decode limit; a write may have been applied.
    AnswerTooLarge(Cause),
    /// The server refused it: not applied, and it would be refused again.
    Refused(Error),
    /// It may or may not have been, or still be, applied.
    Ambiguous(Cause),
}

pub(crate) fn classify(error: &etcd_client::Error) -> Fault {
    match error {
        etcd_client::Error::GRpcStatus(status) => classify_status(status),
        etcd_client::Error::InvalidArgs(text) => {
            Fault::Refused(Error::Refused { cause: Cause::new(text.as_str()) })
        }
        etcd_client::Error::InvalidUri(error) => {
            Fault::Refused(Error::InvalidOption { option: "endpoints", reason: error.to_string() })
        }
        etcd_client::Error::TransportError(error) => {
            let text = chain(error);
            if is_tls(&text) { Fault::Tls(Cause::new(text)) } else { Fault::Ambiguous(Cause::new(text)) }
        }
        other => Fault::Ambiguous(Cause::new(other.to_string())),
    }
}

fn classify_status(status: &Status) -> Fault {
    let message = status.message();
    let cause = || Cause::new(format!("{}: {message}", name(status.code())));
    match status.code() {
        Code::Unavailable if message.contains("tcp connect error") => {
            Fault::NotSent(Cause::new(format!("connect: {}", sources(status))))
        }
        _ if is_connect_failure(status) => {
            let text = sources(status);
            if is_tls(&text) { Fault::Tls(Cause::new(text)) } else { Fault::NotSent(Cause::new(text)) }
        }
        // A server that wants a client certificate says so after the handshake (TLS 1.3): the connection breaks on
        // first use, with the alert in the source.
        Code::Unavailable | Code::Unknown | Code::Internal if is_tls(&sources(status)) => {
            Fault::Tls(Cause::new(sources(status)))
        }
        // What has a source was made up on this side, from an error of the connection: no word of etcd's. An HTTP/2 peer that
        // resets a stream to calm us down looks like a refusal otherwise, though the request may have been applied.
        _ if status.source().is_some() => {
            Fault::Ambiguous(Cause::new(format!("{}: {}", name(status.code()), sources(status))))
        }
        Code::Unavailable if message == "etcdserver: no leader" => Fault::NoLeader(cause()),
        Code::Unauthenticated => Fault::StaleToken(cause()),
        Code::Unknown if message == "etcdserver: invalid auth token" => Fault::StaleToken(cause()),
        // etcd 3.4 and 3.5 answer so when auth was enabled underneath a client whose token predates it.
        Code::InvalidArgument if message.contains("revision of auth store is old") => {
            Fault::StaleToken(cause())
        }
        Code::InvalidArgument
            if message.contains("authentication failed") || message.contains("user name is empty") =>
        {
            Fault::Refused(Error::Unauthenticated { cause: cause() })
        }
        Code::PermissionDenied => Fault::Refused(Error::PermissionDenied { cause: cause() }),
        Code::OutOfRange if message.contains("compacted") => Fault::Refused(Error::Compacted { revision: 0 }),
        Code::ResourceExhausted if message.contains("database space exceeded") => {
            Fault::Refused(Error::OutOfSpace)
        }
        // These two speak of the *answer*: the request may have been applied.
        Code::OutOfRange if message.contains("message length too large") => Fault::AnswerTooLarge(cause()),
        Code::ResourceExhausted if message.contains("too many requests") => Fault::Ambiguous(cause()),
        // The status was made up from an HTTP one: whoever answered is not etcd, and what it did is not known.
        _ if message.contains("grpc-status header missing") => Fault::Ambiguous(cause()),
        Code::NotFound if message.contains("requested lease not found") => Fault::Refused(Error::LeaseGone),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented => Fault::Refused(Error::Refused { cause: cause() }),
        _ => Fault::Ambiguous(Cause::new(format!("{}: {}", name(status.code()), sources(status)))),
    }
}

fn is_connect_failure(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        if error.is::<tonic::ConnectError>()
            || text == "tcp connect error"
            || text == "client error (Connect)"
            || text == "transport error: connect"
        {
            return true;
        }
        source = error.source();
    }
    false
}

fn is_tls(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    // An end in the middle of a handshake is what a server that is going down, or a proxy without one, does.
    let ended = text.contains("handshake eof");
    !ended
        && ["certificate", "received fatal alert", "tls handshake", "corrupt message"]
            .iter()
            .any(|mark| text.contains(mark))
}

/// Whether a connection was ended around its TLS handshake. A server that refuses a client's certificate does so, and
/// says why, but when we write before we read, what it said is lost with the connection.
pub(crate) fn broke_early(fault: &Fault) -> bool {
    let (Fault::NotSent(cause) | Fault::Ambiguous(cause)) = fault else { return false };
    let text = cause.to_string();
    ["handshake eof", "connection closed", "broken pipe", "close_notify", "connection reset"]
        .iter()
        .any(|mark| text.to_ascii_lowercase().contains(mark))
}

fn sources(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        append(&mut text, &error.to_string());
        source = error.source();
    }
    text
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        append(&mut text, &error.to_string());
        source = error.source();
    }
    text
}

fn append(text: &mut String, more: &str) {
    if !text.contains(more) {
        text.push_str(": ");
        text.push_str(more);
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid argument",
        Code::DeadlineExceeded => "deadline exceeded",
        Code::NotFound => "not found",
        Code::AlreadyExists => "already exists",
        Code::PermissionDenied => "permission denied",
        Code::ResourceExhausted => "resource exhausted",
        Code::FailedPrecondition => "failed precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out of range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Fault {
        classify(&etcd_client::Error::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn whatever_may_have_been_applied_is_ambiguous() {
        for (code, message) in [
            (Code::Unknown, "context deadline exceeded"),
            (Code::Cancelled, "Timeout expired"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "http2 error"),
            (Code::Unknown, "h2 protocol error: error reading a body from connection"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Internal, "anything"),
        ] {
            assert!(matches!(of(code, message), Fault::Ambiguous(_)), "{message}");
        }
    }

    #[test]
    fn definite_refusals_are_told_apart() {
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Fault::NoLeader(_)));
        assert!(matches!(of(Code::Unavailable, "tcp connect error"), Fault::NotSent(_)));
        assert!(matches!(of(Code::Unauthenticated, "etcdserver: invalid auth token"), Fault::StaleToken(_)));
        assert!(matches!(of(Code::Unknown, "etcdserver: invalid auth token"), Fault::StaleToken(_)));
        assert!(matches!(
            of(Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
            Fault::Refused(Error::Unauthenticated { .. })
        ));
        assert!(matches!(
            of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Fault::Refused(Error::OutOfSpace)
        ));
        assert!(matches!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Fault::Refused(Error::Compacted { .. })
        ));
        let gone = of(Code::NotFound, "etcdserver: requested lease not found");
        assert!(matches!(gone, Fault::Refused(Error::LeaseGone)));
        let large =
            "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes";
        assert!(matches!(of(Code::OutOfRange, large), Fault::AnswerTooLarge(_)));
    }
}
