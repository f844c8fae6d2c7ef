//! What happens next, in virtual time.

use std::collections::BTreeMap;

use wpool_pool::time::Instant;

/// What will happen, in the order of its moments, and at one moment in the order it was entered.
#[derive(Clone, Debug)]
pub(crate) struct Agenda<T> {
    entries: BTreeMap<(Instant, u64), T>,
    entered: u64,
}

impl<T> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            entered: 0,
        }
    }

    pub(crate) fn enter(&mut self, at: Instant, what: T) {
        self.entered += 1;
        self.entries.insert((at, self.entered), what);
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(&(at, _), _)| at)
    }

    pub(crate) fn take(&mut self) -> Option<(Instant, T)> {
        self.entries.pop_first().map(|((at, _), what)| (at, what))
    }

    /// Crosses out what will not happen after all.
    pub(crate) fn retain(&mut self, happens: impl Fn(&T) -> bool) {
        self.entries.retain(|_, what| happens(what));
    }
}
