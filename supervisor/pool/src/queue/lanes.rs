//! The jobs of one tenant in one class: the higher rank first, then the earlier arrival.
//!
//! One lane for each rank. Nearly all jobs come in the order of their arrival and leave in it, at the ends, where the next one
//! costs the same whether ten wait behind it or a million. Who comes back (another attempt, a delay that is over) or leaves early does so
//! in the middle: a lane is a row of short rows, so that this moves few.
//!
//! # Invariants
//!
//! - No short row is empty, and none is longer than [`SHORT`]. Two neighbours together have more than half of that, but at the ends.
//! - An arrival is not given twice.

use core::cmp::Reverse;

use alloc::collections::{BTreeMap, VecDeque};

use wpool_protocol::id::JobId;

use crate::queue::Place;

/// The longest of the short rows.
const SHORT: usize = 64;

/// A tenant's jobs of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes {
    ranks: BTreeMap<Reverse<i32>, Lane>,
}

/// Those of one rank, the earliest arrival first.
#[derive(Clone, Debug, Default)]
struct Lane {
    rows: VecDeque<VecDeque<(u64, JobId)>>,
}

impl Lanes {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    pub(crate) fn insert(&mut self, place: Place, id: JobId) {
        let lane = self.ranks.entry(place.rank).or_default();
        lane.insert(place.arrival, id);
    }

    pub(crate) fn get(&self, place: Place) -> Option<JobId> {
        self.ranks.get(&place.rank)?.get(place.arrival)
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<JobId> {
        let lane = self.ranks.get_mut(&place.rank)?;
        let removed = lane.remove(place.arrival);
        if lane.rows.is_empty() {
            self.ranks.remove(&place.rank);
        }
        removed
    }

    pub(crate) fn pop_first(&mut self) -> Option<JobId> {
        let mut first = self.ranks.first_entry()?;
        let lane = first.get_mut();
        let id = lane.pop_first();
        if lane.rows.is_empty() {
            first.remove();
        }
        id
    }

    /// All, first to start first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = JobId> {
        self.ranks.values().flat_map(Lane::iter)
    }
}

impl Lane {
    fn insert(&mut self, arrival: u64, id: JobId) {
        let new = (arrival, id);
        let Some(last) = self.rows.back_mut() else {
            // Room for one: where each job has a rank of its own, it stays the only one.
            self.rows = VecDeque::from([VecDeque::from([new])]);
            return;
        };
        if last.back().is_some_and(|&(of_last, _)| of_last < arrival) {
            if last.len() < SHORT {
                last.push_back(new);
            } else {
                let mut row = VecDeque::with_capacity(SHORT);
                row.push_back(new);
                self.rows.push_back(row);
            }
            return;
        }
        let number = self.row_of(arrival);
        let Some(row) = self.rows.get_mut(number) else {
            return;
        };
        if let Err(at) = row.binary_search_by_key(&arrival, |&(it, _)| it) {
            row.insert(at, new);
        }
        if row.len() > SHORT {
            let second = row.split_off(SHORT / 2);
            self.rows.insert(number + 1, second);
        }
    }

    /// The short row in which an arrival is, or would be.
    fn row_of(&self, arrival: u64) -> usize {
        let begins_before =
            |row: &VecDeque<(u64, JobId)>| row.front().is_some_and(|&(it, _)| it <= arrival);
        let rows = self.rows.partition_point(begins_before);
        rows.saturating_sub(1)
    }

    fn get(&self, arrival: u64) -> Option<JobId> {
        let row = self.rows.get(self.row_of(arrival))?;
        let at = row.binary_search_by_key(&arrival, |&(it, _)| it).ok()?;
        row.get(at).map(|&(_, id)| id)
    }

    fn remove(&mut self, arrival: u64) -> Option<JobId> {
        let number = self.row_of(arrival);
        let row = self.rows.get_mut(number)?;
        let at = row.binary_search_by_key(&arrival, |&(it, _)| it).ok()?;
        let (_, id) = row.remove(at)?;
        if row.is_empty() {
            self.rows.remove(number);
        } else {
            // With the next, or of the last with the one before.
            self.join(number);
            self.join(number.saturating_sub(1));
        }
        Some(id)
    }

    /// Makes one of a short row and the next if both have few.
    fn join(&mut self, number: usize) {
        let len = |number: usize| self.rows.get(number).map(VecDeque::len);
        let (Some(first), Some(second)) = (len(number), len(number + 1)) else {
            return;
        };
        if first + second <= SHORT / 2
            && let Some(mut second) = self.rows.remove(number + 1)
            && let Some(first) = self.rows.get_mut(number)
        {
            first.append(&mut second);
        }
    }

    fn pop_first(&mut self) -> Option<JobId> {
        let row = self.rows.front_mut()?;
        let (_, id) = row.pop_front()?;
        if row.is_empty() {
            self.rows.pop_front();
        }
        Some(id)
    }

    fn iter(&self) -> impl Iterator<Item = JobId> {
        self.rows.iter().flatten().map(|&(_, id)| id)
    }
}

impl PartialEq for Lanes {
    /// Whether the same jobs come in the same order: how they came there does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Lanes {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Happening {
        Comes(i32),
        ComesBack(usize, i32),
        IsTaken,
        IsRemoved(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            6 => (0..2).prop_map(Happening::Comes),
            1 => (0..400_usize, 0..2).prop_map(|(which, rank)| Happening::ComesBack(which, rank)),
            2 => Just(Happening::IsTaken),
            3 => (0..400_usize).prop_map(Happening::IsRemoved),
        ]
    }

    proptest! {
        #[test]
        fn lanes_are_an_ordered_map(happenings in proptest::collection::vec(happening(), 0..600)) {
            let mut lanes = Lanes::default();
            let mut expected = BTreeMap::new();
            let mut left = alloc::vec::Vec::new();
            for (arrival, happening) in (0..).zip(happenings) {
                let which_of = |which: usize| {
                    expected.keys().nth(which).copied().unwrap_or(Place::new(0, u64::MAX))
                };
                match happening {
                    Happening::Comes(rank) => {
                        let place = Place::new(rank, arrival);
                        lanes.insert(place, JobId(arrival));
                        expected.insert(place, JobId(arrival));
                    }
                    Happening::ComesBack(which, rank) if which < left.len() => {
                        let JobId(arrival) = left.swap_remove(which);
                        let place = Place::new(rank, arrival);
                        lanes.insert(place, JobId(arrival));
                        expected.insert(place, JobId(arrival));
                    }
                    Happening::ComesBack(..) => {}
                    Happening::IsTaken => {
                        let taken = lanes.pop_first();
                        prop_assert_eq!(taken, expected.pop_first().map(|(_, id)| id));
                        left.extend(taken);
                    }
                    Happening::IsRemoved(which) => {
                        let place = which_of(which);
                        prop_assert_eq!(lanes.get(place), expected.get(&place).copied());
                        let removed = lanes.remove(place);
                        prop_assert_eq!(removed, expected.remove(&place));
                        prop_assert_eq!(lanes.get(place), None);
                        left.extend(removed);
                    }
                }
                prop_assert!(lanes.iter().eq(expected.values().copied()));
                prop_assert_eq!(lanes.is_empty(), expected.is_empty());
                for lane in lanes.ranks.values() {
                    let lens: alloc::vec::Vec<_> = lane.rows.iter().map(VecDeque::len).collect();
                    prop_assert!(lens.iter().all(|len| (1..=SHORT).contains(len)), "{lens:?}");
                }
            }
        }
    }
}
