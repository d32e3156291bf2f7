//! How messages reach a group.

use std::fmt;
use std::str::FromStr;

/// How often a message may reach a group, and so what is spoken on the wire. Its first member decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// PUSH and PULL: a message goes to one member, and is lost with it, or with its connection. The fastest.
    #[default]
    AtMostOnce,
    /// REQ and REP: a message is kept by the sender until a member has acknowledged it, and goes to another one
    /// otherwise. It may come more than once.
    AtLeastOnce,
}

impl Mode {
    /// As it is written in etcd.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AtMostOnce => "push",
            Self::AtLeastOnce => "acked",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMostOnce => "at most once",
            Self::AtLeastOnce => "at least once",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    /// The name that is written in etcd.
    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::AtMostOnce, Self::AtLeastOnce].into_iter().find(|mode| mode.name() == name).ok_or(())
    }
}
