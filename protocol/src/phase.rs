//! Which message a worker may send when: one table.
//!
//! ```text
//!   Greeting ──Hello──▶ Building ──Ready──▶ Idle ──(Job is sent)──▶ Loading ──Started──▶ Running
//!                          │                 ▲                        │                     │
//!                       Refused              │                     Ended              Output│Ended
//!                          ▼                 │                        │                     ▼
//!                        Leaving             └────────────────────────┴────Ended──── Collecting
//! ```
//!
//! A worker that was told to start a job is in `Loading` until it says `Started` or, where the job could
//! not be started at all, `Ended`. `Collecting` is entered with the first `Output`.
//!
//! # Invariants
//!
//! - What the table does not permit is a violation: the supervisor kills the worker and requeues its job.
//! - The supervisor alone moves a worker from `Idle` to `Loading`, by sending a job.

use crate::wire::FromWorker;

/// Where a worker is in the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It has said nothing.
    Greeting,
    /// It builds its sandbox.
    Building,
    /// It waits for a job.
    Idle,
    /// It has a job and has not started it.
    Loading,
    /// Its job runs.
    Running,
    /// Its job is dead; outputs come.
    Collecting,
    /// It has refused to work and exits.
    Leaving,
}

/// A message without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// [`FromWorker::Hello`]
    Hello,
    /// [`FromWorker::Ready`]
    Ready,
    /// [`FromWorker::Refused`]
    Refused,
    /// [`FromWorker::Started`]
    Started,
    /// [`FromWorker::Written`]
    Written,
    /// [`FromWorker::Output`]
    Output,
    /// [`FromWorker::OutputBytes`]
    OutputBytes,
    /// [`FromWorker::Ended`]
    Ended,
    /// [`FromWorker::Pong`]
    Pong,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 7] = [
        Self::Greeting,
        Self::Building,
        Self::Idle,
        Self::Loading,
        Self::Running,
        Self::Collecting,
        Self::Leaving,
    ];

    /// The phase after a message of this kind; `None` if it is not permitted now.
    #[expect(
        clippy::match_same_arms,
        reason = "a table: one row for each arrow of the diagram above"
    )]
    pub const fn after(self, message: MessageKind) -> Option<Self> {
        use MessageKind as M;

        match (self, message) {
            (Self::Greeting, M::Hello) => Some(Self::Building),
            (Self::Building, M::Ready) => Some(Self::Idle),
            (Self::Building, M::Refused) => Some(Self::Leaving),
            (Self::Idle | Self::Loading | Self::Running | Self::Collecting, M::Pong) => Some(self),
            (Self::Loading, M::Started) => Some(Self::Running),
            (Self::Running, M::Written) => Some(Self::Running),
            (Self::Running, M::Output) => Some(Self::Collecting),
            (Self::Collecting, M::Output | M::OutputBytes) => Some(Self::Collecting),
            (Self::Loading | Self::Running | Self::Collecting, M::Ended) => Some(Self::Idle),
            (
                Self::Greeting
                | Self::Building
                | Self::Idle
                | Self::Loading
                | Self::Running
                | Self::Collecting
                | Self::Leaving,
                M::Hello
                | M::Ready
                | M::Refused
                | M::Started
                | M::Written
                | M::Output
                | M::OutputBytes
                | M::Ended
                | M::Pong,
            ) => None,
        }
    }
}

impl FromWorker {
    /// The message without its content.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Hello(_) => MessageKind::Hello,
            Self::Ready(_) => MessageKind::Ready,
            Self::Refused(_) => MessageKind::Refused,
            Self::Started(_) => MessageKind::Started,
            Self::Written(_) => MessageKind::Written,
            Self::Output(_) => MessageKind::Output,
            Self::OutputBytes(_) => MessageKind::OutputBytes,
            Self::Ended(_) => MessageKind::Ended,
            Self::Pong(_) => MessageKind::Pong,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const KINDS: [MessageKind; 9] = [
        MessageKind::Hello,
        MessageKind::Ready,
        MessageKind::Refused,
        MessageKind::Started,
        MessageKind::Written,
        MessageKind::Output,
        MessageKind::OutputBytes,
        MessageKind::Ended,
        MessageKind::Pong,
    ];

    #[test]
    fn the_table_permits_exactly_this() {
        let mut table = String::new();
        for phase in Phase::ALL {
            for kind in KINDS {
                if let Some(next) = phase.after(kind) {
                    writeln!(table, "{phase:?} {kind:?} -> {next:?}").unwrap();
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn an_idle_worker_has_nothing_to_say_about_jobs() {
        for kind in KINDS {
            let permitted = Phase::Idle.after(kind).is_some();
            assert_eq!(permitted, kind == MessageKind::Pong, "{kind:?}");
        }
    }
}
