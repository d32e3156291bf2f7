//! Where a group lives.
//!
//! ```text
//! sereno/waitgroup/<name>/
//!   value            what was added, less what was done; the generation
//!   cells/<epoch>    what one session has added and not yet put into `value`
//!   folded/<epoch>   receipt for a cell of a session that died
//!   workers/<id>     a worker that has entered and is not done: {"label":"node-3","epoch":"…"}
//!   alive/<id>       the same, on the worker's session: gone when the session is
//!   withdrawn/<id>   a worker that shall not enter: its entering was given up; gone when its session is
//! ```
//! An id is `<session epoch>-<number>`, and used once.

use sereno_core::{Key, KeyError, Namespace, Prefix};

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: Prefix,
    workers: Prefix,
    alive: Prefix,
    withdrawn: Prefix,
}

/// What a key of ours says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The record of the worker of that id.
    Worker(String),
    /// The sign that the worker of that id is alive.
    Alive(String),
}

impl Keys {
    pub(crate) fn new(namespace: &Namespace, name: &[u8]) -> Result<Self, KeyError> {
        let root = namespace.prefix("waitgroup")?.join(name)?;
        let workers = root.join("workers")?;
        let alive = root.join("alive")?;
        let withdrawn = root.join("withdrawn")?;
        Ok(Self { root, workers, alive, withdrawn })
    }

    pub(crate) fn root(&self) -> &Prefix {
        &self.root
    }

    pub(crate) fn worker(&self, id: &str) -> Result<Key, KeyError> {
        self.workers.key(id)
    }

    pub(crate) fn workers(&self) -> &Prefix {
        &self.workers
    }

    pub(crate) fn alive_ones(&self) -> &Prefix {
        &self.alive
    }

    pub(crate) fn alive(&self, id: &str) -> Result<Key, KeyError> {
        self.alive.key(id)
    }

    pub(crate) fn withdrawn(&self, id: &str) -> Result<Key, KeyError> {
        self.withdrawn.key(id)
    }

    /// The worker whose record this is.
    pub(crate) fn worker_of(&self, key: &Key) -> Option<String> {
        self.workers.child(key).filter(|id| is_id(id))
    }

    /// `None` for what is not ours.
    pub(crate) fn place(&self, key: &Key) -> Option<Place> {
        let alive = || self.alive.child(key).filter(|id| is_id(id));
        self.worker_of(key).map(Place::Worker).or_else(|| alive().map(Place::Alive))
    }
}

fn is_id(id: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    id.split_once('-').is_some_and(|(epoch, number)| hex(epoch) && digits(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_drawn() {
        let keys = Keys::new(&Namespace::default(), b"batch 7").unwrap();
        assert_eq!(keys.root().as_bytes(), b"sereno/waitgroup/batch%207/");
        assert_eq!(keys.worker("ab-1").unwrap().as_bytes(), b"sereno/waitgroup/batch%207/workers/ab-1");
        assert_eq!(keys.alive("ab-1").unwrap().as_bytes(), b"sereno/waitgroup/batch%207/alive/ab-1");
    }

    #[test]
    fn a_name_that_cannot_be_a_key_is_refused() {
        assert_eq!(Keys::new(&Namespace::default(), b"").unwrap_err(), KeyError::Empty);
        let long = [b'x'; 256];
        assert_eq!(Keys::new(&Namespace::default(), &long).unwrap_err(), KeyError::TooLong { len: 256 });
    }
}
