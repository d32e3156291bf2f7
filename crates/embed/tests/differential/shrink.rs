//! A list that shrinks by halves: a script of a thousand operations would take proptest's own list, which gives up one
//! element at a time, a thousand runs to shorten.

use proptest::strategy::{BoxedStrategy, NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// As many values of one strategy as `length` says.
#[derive(Clone, Debug)]
pub(crate) struct Script<T: std::fmt::Debug + 'static> {
    pub(crate) operation: BoxedStrategy<T>,
    pub(crate) length: usize,
}

impl<T: Clone + std::fmt::Debug + 'static> Strategy for Script<T> {
    type Tree = ScriptTree<T>;
    type Value = Vec<T>;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let trees =
            (0..self.length).map(|_| self.operation.new_tree(runner)).collect::<Result<Vec<_>, _>>()?;
        let kept = vec![true; trees.len()];
        Ok(ScriptTree { chunk: trees.len().div_ceil(2), next: trees.len(), trees, kept, last: Last::Nothing })
    }
}

/// First drops halves, quarters and so on from the end to the front, then makes the operations that are left simpler.
pub(crate) struct ScriptTree<T> {
    trees: Vec<Box<dyn ValueTree<Value = T>>>,
    kept: Vec<bool>,
    /// How many operations are dropped at once; 0 when dropping is over.
    chunk: usize,
    /// Dropping: everything from here on was tried with this chunk. Simplifying: the operation at work.
    next: usize,
    last: Last,
}

enum Last {
    Nothing,
    Dropped(Vec<usize>),
    Simplified(usize),
}

impl<T> ScriptTree<T> {
    fn drop_some(&mut self) -> bool {
        while self.chunk > 0 {
            let left: Vec<usize> =
                (0..self.next).rev().filter(|index| self.kept[*index]).take(self.chunk).collect();
            if let Some(first) = left.last() {
                self.next = *first;
                left.iter().for_each(|index| self.kept[*index] = false);
                self.last = Last::Dropped(left);
                return true;
            }
            self.chunk /= 2;
            self.next = self.kept.len();
        }
        false
    }
}

impl<T> ValueTree for ScriptTree<T>
where
    T: std::fmt::Debug,
{
    type Value = Vec<T>;

    fn current(&self) -> Vec<T> {
        self.trees.iter().zip(&self.kept).filter(|(_, kept)| **kept).map(|(tree, _)| tree.current()).collect()
    }

    fn simplify(&mut self) -> bool {
        if self.chunk > 0 {
            if self.drop_some() {
                return true;
            }
            self.next = 0;
        }
        while let Some(tree) = self.trees.get_mut(self.next) {
            if self.kept[self.next] && tree.simplify() {
                self.last = Last::Simplified(self.next);
                return true;
            }
            self.next += 1;
        }
        false
    }

    fn complicate(&mut self) -> bool {
        match std::mem::replace(&mut self.last, Last::Nothing) {
            Last::Nothing => false,
            Last::Dropped(indices) => {
                indices.into_iter().for_each(|index| self.kept[index] = true);
                // What was put back is known to fail: on with the next part at once.
                self.simplify()
            }
            Last::Simplified(index) => {
                if self.trees[index].complicate() {
                    self.last = Last::Simplified(index);
                    return true;
                }
                self.next = index + 1;
                self.simplify()
            }
        }
    }
}
