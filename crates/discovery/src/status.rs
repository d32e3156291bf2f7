//! How a registration stands.

/// How a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// It has not been made yet.
    Starting,
    /// The host is there.
    Kept,
    /// The host was deleted underneath, or its lease was lost; it is being restored.
    Missing,
    /// Stopped, or the session was closed. Final.
    Stopped,
    /// Given up: [`Registration::ready`](crate::Registration::ready) says why. Final.
    Failed,
}

/// The latest news of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// How it stands.
    pub state: RegistrationState,
    /// The session's epoch it was last written under, 0 before.
    pub epoch: u64,
    /// The revision at which the host was last written, 0 before.
    pub revision: i64,
    /// How often the host had to be restored.
    pub restored: u64,
}
