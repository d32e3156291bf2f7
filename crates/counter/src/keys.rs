//! Where a counter is kept.
//!
//! ```text
//! sereno/counter/<name>/value                what the cells count from
//!                       cells/<epoch>-<n>    what each session has added
//!                       folded/<epoch>-<n>   what became of the cells of dead sessions
//! ```

use sereno_core::{KeyError, Namespace, Prefix};

pub(crate) fn prefix(namespace: &Namespace, name: &str) -> Result<Prefix, KeyError> {
    namespace.prefix("counter")?.join(name)
}
