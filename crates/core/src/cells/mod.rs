//! Cells: one number that many sessions add to at once, exactly once each, each being told the value right after its own
//! addition.
//!
//! Comparing and setting one key collapses when many do it, because of all who try one succeeds. Here each session writes
//! a key of its own, its *cell*, which holds the total of what this session has added. The value is the *base* plus all
//! cells; a transaction that writes one's cell and reads all cells returns it as of that very moment.
//!
//! ```text
//! <prefix>/value                base      {"value":40,"generation":3}
//! <prefix>/cells/<epoch>-<n>    a cell    {"total":2,"seq":17,"generation":3}
//! <prefix>/folded/<epoch>-<n>   a receipt {"total":2,"seq":17,"generation":3,"revision":812}
//! <prefix>/…                    the recipe's own
//! ```
//! Every write compares, and needs, three things:
//! - *its own cell*: of several copies of one transaction (it is sent again when its answer is lost) exactly one can land,
//!   and the cell's `seq` tells which was the last to do so. The answer that was lost is the range as of the cell's
//!   revision;
//! - *the base*: a late copy of a first write must not land after the cell was counted into the base, and nobody may count
//!   on after a `set` without having seen it. A `set` writes the next generation into the base; cells of earlier ones no
//!   longer count;
//! - *its session's key*: no cell may come up whose owner has been found dead, because nobody would look for it again until
//!   somebody counts.
//!
//! *Folding* adds a cell to the base and deletes it in one transaction. A session does so with its own cell when it is
//! idle or closes; the cells of the dead are folded by whoever is active, on condition that the owner's session key is
//! gone, and leave a receipt with the last `seq`, so that a session which was only thought dead learns what became of its last
//! write.
//!
//! *Removing* writes a base that is 0, of the next generation, on a lease of ten minutes. It refuses copies of first writes,
//! which would find neither base nor cell, and goes with its lease unless somebody writes before: then a base begins that stays.
//!
//! *Exact* operations decide on everything below the prefix. Their transaction also compares that nothing there was written
//! since; it always writes the base, and so does everything that deletes, so that deletions do not go unnoticed. All
//! additions take this way when the value comes near the end of `i64`: then the base says so.

mod books;
mod exact;
mod fast;
mod fold;
mod handle;
mod layout;
mod queue;
mod settle;
mod tally;
mod worker;

pub use handle::{Cells, CellsOptions};
pub use tally::{MAX_APPLY_OPS, Sum, SumOverflow, Tally, TallyChange, Verdict};
