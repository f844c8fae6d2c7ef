//! Workers that are to be replaced for no fault of theirs: after so many jobs, at such an age, or because the operator says so.
//!
//! ```text
//!   nothing due ──▶ some due: the spare slot gets a worker ──▶ it is up: one due slot has its turn ──▶ its new worker is up
//!        ▲                                                            ▲                                     │
//!        └───────── nothing more due: the spare slot is closed ───────┴─────────── more due ────────────────┘
//! ```
//!
//! The spare is the slot after the last: it works like the others as long as it is there, so that there are never fewer
//! workers than wanted because of this. A slot has its turn when it is idle: what runs is not waited for, and not ended. Should its new
//! worker not come up, the spare goes on standing in for it, and the others wait: the pool is degraded then, and says so.
//!
//! # Invariants
//!
//! - One slot at a time has its turn, and only while the spare has a worker that is up.
//! - What is due has a number below that of the spare: the spare itself does not live long enough.

use alloc::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::SlotId;

/// What is to be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recycling {
    due: BTreeSet<SlotId>,
    turn: Option<SlotId>,
}

impl Recycling {
    /// Whether the spare slot is needed.
    pub(crate) fn is_under_way(&self) -> bool {
        self.turn.is_some() || !self.due.is_empty()
    }

    /// The slot that has its turn.
    pub(crate) const fn turn(&self) -> Option<SlotId> {
        self.turn
    }

    /// The slots whose turn will come.
    pub(crate) fn due(&self) -> impl Iterator<Item = SlotId> {
        self.due.iter().copied()
    }

    /// The worker of this slot is to be replaced.
    pub(crate) fn add(&mut self, slot: SlotId) {
        self.due.insert(slot);
    }

    /// The slot gets a new worker: whatever it was due for.
    pub(crate) fn is_born(&mut self, slot: SlotId) {
        self.due.remove(&slot);
    }

    /// The slot has its turn from now on.
    pub(crate) fn begin(&mut self, slot: SlotId) {
        self.due.remove(&slot);
        self.turn = Some(slot);
    }

    /// The worker of this slot is up.
    pub(crate) fn is_up(&mut self, slot: SlotId) {
        if self.turn == Some(slot) {
            self.turn = None;
        }
    }

    /// There are only so many slots.
    pub(crate) fn forget_beyond(&mut self, slots: u16) {
        self.due.retain(|slot| slot.0 < slots);
        self.turn = self.turn.filter(|slot| slot.0 < slots);
    }
}
