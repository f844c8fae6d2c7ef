//! The jobs of one tenant in one class: the higher rank first, then the earlier arrival.
//!
//! One lane for each rank. Nearly all jobs come in the order of their arrival and leave in it: those lie in a row, where the next one
//! costs the same whether ten wait behind it or a million. Who comes back (another attempt, a delay that is over) comes late, and has a
//! place of its own in a map.
//!
//! # Invariants
//!
//! - The first and the last in a row wait; who was taken out between them is in `gone`, and those are at most half of the row.
//! - A job is in the row or among the late; an arrival is not given twice.

use core::cmp::Reverse;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use wpool_protocol::id::JobId;

use crate::queue::Place;

/// A tenant's jobs of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes {
    ranks: BTreeMap<Reverse<i32>, Lane>,
}

/// Those of one rank.
#[derive(Clone, Debug, Default)]
struct Lane {
    row: VecDeque<(u64, JobId)>,
    gone: BTreeSet<u64>,
    late: BTreeMap<u64, JobId>,
}

impl Lanes {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    pub(crate) fn insert(&mut self, place: Place, id: JobId) {
        let lane = self.ranks.entry(place.rank).or_default();
        let last = lane.row.back().map(|&(arrival, _)| arrival);
        if last.is_none_or(|last| last < place.arrival) {
            lane.row.push_back((place.arrival, id));
        } else if !lane.gone.remove(&place.arrival) {
            lane.late.insert(place.arrival, id);
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<JobId> {
        self.ranks.get(&place.rank)?.get(place.arrival)
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<JobId> {
        let lane = self.ranks.get_mut(&place.rank)?;
        let removed = lane.remove(place.arrival);
        if lane.row.is_empty() && lane.late.is_empty() {
            self.ranks.remove(&place.rank);
        }
        removed
    }

    pub(crate) fn pop_first(&mut self) -> Option<JobId> {
        let mut first = self.ranks.first_entry()?;
        let lane = first.get_mut();
        let id = lane.pop_first();
        if lane.row.is_empty() && lane.late.is_empty() {
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
    fn get(&self, arrival: u64) -> Option<JobId> {
        if let Some(&id) = self.late.get(&arrival) {
            return Some(id);
        }
        let at = self
            .row
            .binary_search_by_key(&arrival, |&(it, _)| it)
            .ok()?;
        let &(_, id) = self.row.get(at)?;
        (!self.gone.contains(&arrival)).then_some(id)
    }

    fn remove(&mut self, arrival: u64) -> Option<JobId> {
        let id = self.get(arrival)?;
        if self.late.remove(&arrival).is_none() {
            self.gone.insert(arrival);
            self.tidy();
        }
        Some(id)
    }

    fn pop_first(&mut self) -> Option<JobId> {
        let of_row = self.row.front().map(|&(arrival, _)| arrival);
        let of_late = self.late.first_key_value().map(|(&arrival, _)| arrival);
        if of_row.is_some_and(|of_row| of_late.is_none_or(|of_late| of_row < of_late)) {
            let first = self.row.pop_front();
            self.tidy();
            first.map(|(_, id)| id)
        } else {
            self.late.pop_first().map(|(_, id)| id)
        }
    }

    /// Whoever is gone does not stand at an end, and where half of all are, none stays.
    fn tidy(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        while let Some((arrival, _)) = self.row.front()
            && self.gone.remove(arrival)
        {
            self.row.pop_front();
        }
        while let Some((arrival, _)) = self.row.back()
            && self.gone.remove(arrival)
        {
            self.row.pop_back();
        }
        if self.gone.len() > self.row.len() / 2 {
            let gone = core::mem::take(&mut self.gone);
            self.row.retain(|(arrival, _)| !gone.contains(arrival));
        }
    }

    fn iter(&self) -> impl Iterator<Item = JobId> {
        let mut row = self.row.iter().copied().peekable();
        let mut late = self
            .late
            .iter()
            .map(|(&arrival, &id)| (arrival, id))
            .peekable();
        let all = core::iter::from_fn(move || match (row.peek(), late.peek()) {
            (Some((of_row, _)), Some((of_late, _))) if of_late < of_row => late.next(),
            (Some(_), _) => row.next(),
            (None, _) => late.next(),
        });
        let waits = all.filter(|(arrival, _)| !self.gone.contains(arrival));
        waits.map(|(_, id)| id)
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
            4 => (0..2).prop_map(Happening::Comes),
            1 => (0..20_usize, 0..2).prop_map(|(which, rank)| Happening::ComesBack(which, rank)),
            2 => Just(Happening::IsTaken),
            3 => (0..20_usize).prop_map(Happening::IsRemoved),
        ]
    }

    proptest! {
        #[test]
        fn lanes_are_an_ordered_map(happenings in proptest::collection::vec(happening(), 0..300)) {
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
                    prop_assert!(lane.gone.len() <= lane.row.len() / 2);
                    let ends = [lane.row.front(), lane.row.back()];
                    prop_assert!(!ends.iter().flatten().any(|(arrival, _)| lane.gone.contains(arrival)));
                }
            }
        }
    }
}
