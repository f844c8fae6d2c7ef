//! Notices CPU time that leaves a tree with a process which nobody waits for.
//!
//! A process's time, and all that it has reaped, goes to whoever waits for it. If its parent ignores SIGCHLD
//! nobody does, and the time is gone from every sum: a job could run for ever in children of 100 ms each. So
//! the last figures of each process are kept, and when it is gone and no process of the tree has
//! got its time, that is added up here.
//!
//! # Invariants
//!
//! - What is lost is never overstated. What the tree was handed is rounded down by up to two ticks for each of
//!   its processes, so that this much is let go each time; and if something seems lost, what each was
//!   handed is read once more, for a child may have ended after its parent was read.

use std::collections::BTreeMap;
use std::time::Duration;

/// A process: its pid, and when it began in the kernel's clock, for a pid may be given anew.
pub(super) type Key = (u32, u64);

/// CPU time of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// Of its own threads.
    pub(super) own: Duration,
    /// Of those that it has waited for, and of those that they had.
    pub(super) reaped: Duration,
}

/// The processes of a tree at one look.
pub(super) type Tree = BTreeMap<Key, Times>;

/// The last look, and what was lost so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    last: Tree,
    lost: Duration,
}

impl Ledger {
    /// What was lost so far.
    pub(super) fn lost(&self) -> Duration {
        self.lost
    }

    /// How much more seems to be lost at this look. `tick` is the unit in which reaped times are rounded down.
    pub(super) fn missing(&self, tree: &Tree, tick: Duration) -> Duration {
        let gone = self.last.iter().filter(|(key, _)| !tree.contains_key(key));
        let gone: Duration = gone.map(|(_, times)| times.own + times.reaped).sum();
        let handed: Duration = tree
            .iter()
            .map(|(key, times)| {
                let before = self
                    .last
                    .get(key)
                    .map_or(Duration::ZERO, |last| last.reaped);
                times.reaped.saturating_sub(before)
            })
            .sum();
        let rounded = tick * 2 * u32::try_from(tree.len()).unwrap_or(u32::MAX);
        gone.saturating_sub(handed.saturating_add(rounded))
    }

    /// Ends a look at which so much more was lost.
    pub(super) fn close(&mut self, tree: Tree, lost: Duration) {
        self.last = tree;
        self.lost += lost;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    fn floored(time: Duration) -> Duration {
        let ticks = time.as_nanos() / TICK.as_nanos();
        TICK * u32::try_from(ticks).unwrap()
    }

    #[test]
    fn children_that_nobody_waits_for_are_missed_and_others_are_not() {
        let parent = |reaped| Times {
            own: TICK,
            reaped: TICK * reaped,
        };
        let child = Times {
            own: TICK * 20,
            reaped: TICK * 5,
        };
        let mut ledger = Ledger::default();
        ledger.close(
            Tree::from([((1, 0), parent(0)), ((7, 5), child)]),
            Duration::ZERO,
        );
        let reaped = Tree::from([((1, 0), parent(24))]);
        assert_eq!(ledger.missing(&reaped, TICK), Duration::ZERO);
        let vanished = Tree::from([((1, 0), parent(0))]);
        assert_eq!(ledger.missing(&vanished, TICK), TICK * 23);
        // The pid is given to another process at once.
        let vanished = Tree::from([((1, 0), parent(0)), ((7, 9), Times::default())]);
        assert_eq!(ledger.missing(&vanished, TICK), TICK * 21);
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Forks(usize),
        Burns(usize, u64),
        /// Is waited for by its parent, or by the first if that is gone.
        IsReaped(usize),
        Vanishes(usize),
        IsLookedAt,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (0..9_usize).prop_map(Happening::Forks),
            (0..9_usize, 0..90_000_u64).prop_map(|(who, us)| Happening::Burns(who, us)),
            (0..9_usize).prop_map(Happening::IsReaped),
            (0..9_usize).prop_map(Happening::Vanishes),
            Just(Happening::IsLookedAt),
        ]
    }

    struct Process {
        key: Key,
        parent: Key,
        times: Times,
    }

    /// Ends the process at `at`, unless it is the first, and gives its parent's place.
    fn end(tree: &mut Vec<Process>, at: usize) -> Option<(Process, usize)> {
        (at > 0 && at < tree.len()).then(|| {
            let process = tree.remove(at);
            let parent = tree.iter().position(|other| other.key == process.parent);
            (process, parent.unwrap_or(0))
        })
    }

    proptest! {
        #[test]
        fn what_is_lost_is_never_overstated(history in proptest::collection::vec(happening(), 0..150)) {
            let first = Process { key: (1, 0), parent: (0, 0), times: Times::default() };
            let (mut tree, mut ledger, mut lost) = (vec![first], Ledger::default(), Duration::ZERO);
            for (step, happening) in (1..).zip(history) {
                match happening {
                    Happening::Forks(who) => {
                        let parent = tree.get(who).map_or((1, 0), |process| process.key);
                        // A handful of pids: they are given anew all the time.
                        let key = (2 + step % 5, u64::from(step));
                        tree.push(Process { key, parent, times: Times::default() });
                    }
                    Happening::Burns(who, us) => if let Some(process) = tree.get_mut(who) {
                        process.times.own += Duration::from_micros(us);
                    },
                    Happening::IsReaped(who) => if let Some((process, parent)) = end(&mut tree, who) {
                        tree[parent].times.reaped += process.times.own + process.times.reaped;
                    },
                    Happening::Vanishes(who) => if let Some((process, _)) = end(&mut tree, who) {
                        lost += process.times.own + process.times.reaped;
                    },
                    Happening::IsLookedAt => {
                        let read = |process: &Process| {
                            let Times { own, reaped } = process.times;
                            (process.key, Times { own, reaped: floored(reaped) })
                        };
                        let now: Tree = tree.iter().map(read).collect();
                        let missing = ledger.missing(&now, TICK);
                        ledger.close(now, missing);
                        prop_assert!(ledger.lost() <= lost, "{:?} of {lost:?}", ledger.lost());
                    }
                }
            }
        }
    }
}
