//! The pool: being written.

use alloc::vec::Vec;

use wpool_protocol::id::JobId;

use crate::action::Actions;
use crate::event::Event;
use crate::settings::Settings;
use crate::time::Instant;
use crate::view::{JobView, PoolView, SlotView};

/// The pool.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
}

impl Pool {
    /// A pool whose slots are empty: the first event of any kind makes it spawn its workers.
    ///
    /// `seed` decides the jitter of waits.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let _ = seed;
        Self { settings }
    }

    /// Takes in what happened at `now` and appends what is to be done to `actions`.
    ///
    /// `now` never goes back.
    pub fn handle(&mut self, now: Instant, event: Event, actions: &mut Actions) {
        let _ = (now, event, actions);
    }

    /// When [`Event::TimeReached`] is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The pool at a glance.
    pub fn view(&self) -> PoolView {
        unreachable!("{:?}", self.settings)
    }

    /// The slots, in order.
    pub fn slots(&self) -> Vec<SlotView> {
        Vec::new()
    }

    /// A job that has not ended.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let _ = id;
        None
    }
}
