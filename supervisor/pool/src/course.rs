//! What the pool as a whole is about: what the operator last said of it.
//!
//! ```text
//!   ┌ Open ───────────────────────────────────────────────┐
//!   │   ┌───────┐  pause   ┌──────┐                       │
//!   │   │ start │ ───────▶ │ hold │     two things at     │ shutdown          all slots closed,
//!   │   └───────┘ ◀─────── └──────┘     once, undone      │                   all jobs ended
//!   │              resume               together by       │ ───────▶ Stopping ───────────────▶ Stopped
//!   │   ┌───────┐  drain   ┌─────────┐  resume            │          │  │  ▲                    ▲
//!   │   │ admit │ ───────▶ │ refuse  │                    │          │  └──┘ shutdown: the      │
//!   │   └───────┘ ◀─────── └─────────┘                    │  kill_at │  earlier kill_at holds   │
//!   │              resume   Running: starts none          │          ▼                          │
//!   │                       Queued: starts what waits     │       Killing ──────────────────────┘
//!   └─────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - Nothing leads back.

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::event::DrainScope;
use crate::time::Instant;

/// What the pool as a whole is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Course {
    /// It works, as far as the operator lets it.
    Open {
        starts: Starts,
        drain: Option<DrainScope>,
    },
    /// It lets end what runs, until `kill_at`.
    Stopping { kill_at: Instant },
    /// It has killed what still ran.
    Killing,
    /// It has said so.
    Stopped,
}

/// Whether jobs are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Starts {
    Go,
    Held,
}

/// What changes the course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Pause,
    Resume,
    Drain(DrainScope),
    Shutdown {
        kill_at: Instant,
    },
    /// Not a request: the grace of the shutdown is over.
    EndOfGrace,
}

impl Course {
    pub(crate) const OPEN: Self = Self::Open {
        starts: Starts::Go,
        drain: None,
    };

    /// The course after a request: all of (course, request).
    #[must_use]
    pub(crate) fn after(self, request: Request) -> Self {
        match (self, request) {
            (Self::Open { drain, .. }, Request::Pause) => Self::Open {
                starts: Starts::Held,
                drain,
            },
            (Self::Open { .. }, Request::Resume) => Self::OPEN,
            (Self::Open { starts, .. }, Request::Drain(scope)) => Self::Open {
                starts,
                drain: Some(scope),
            },
            (Self::Open { .. }, Request::Shutdown { kill_at }) => Self::Stopping { kill_at },
            (Self::Stopping { kill_at: present }, Request::Shutdown { kill_at }) => {
                Self::Stopping {
                    kill_at: present.min(kill_at),
                }
            }
            (Self::Stopping { .. }, Request::EndOfGrace) => Self::Killing,
            (Self::Stopping { .. }, Request::Pause | Request::Resume | Request::Drain(_))
            | (Self::Open { .. }, Request::EndOfGrace)
            | (
                Self::Killing | Self::Stopped,
                Request::Pause
                | Request::Resume
                | Request::Drain(_)
                | Request::Shutdown { .. }
                | Request::EndOfGrace,
            ) => self,
        }
    }

    /// Whether jobs may be started.
    pub(crate) const fn starts_jobs(self) -> bool {
        match self {
            Self::Open {
                starts: Starts::Go,
                drain: None | Some(DrainScope::Queued),
            } => true,
            Self::Open {
                starts: Starts::Held,
                drain: None | Some(_),
            }
            | Self::Open {
                starts: Starts::Go,
                drain: Some(DrainScope::Running),
            }
            | Self::Stopping { .. }
            | Self::Killing
            | Self::Stopped => false,
        }
    }

    /// Whether jobs may be submitted.
    pub(crate) const fn admits(self) -> Result<(), Refusal> {
        match self {
            Self::Open { drain: None, .. } => Ok(()),
            Self::Open { drain: Some(_), .. } => Err(Refusal::Draining),
            Self::Stopping { .. } | Self::Killing | Self::Stopped => Err(Refusal::Stopping),
        }
    }

    /// Whether the pool is to come to its end.
    pub(crate) const fn ends(self) -> bool {
        match self {
            Self::Open { .. } => false,
            Self::Stopping { .. } | Self::Killing | Self::Stopped => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_undoes_both_pause_and_drain() {
        let course = Course::OPEN
            .after(Request::Pause)
            .after(Request::Drain(DrainScope::Queued));
        assert!(!course.starts_jobs());
        assert_eq!(course.admits(), Err(Refusal::Draining));
        assert_eq!(course.after(Request::Resume), Course::OPEN);
    }

    #[test]
    fn the_scope_of_a_drain_decides_whether_what_waits_is_started() {
        let drained = |scope| Course::OPEN.after(Request::Drain(scope)).starts_jobs();
        assert!(!drained(DrainScope::Running));
        assert!(drained(DrainScope::Queued));
    }

    #[test]
    fn a_shutdown_can_be_hastened_and_not_undone() {
        let [early, late] = [1, 2].map(|s| Instant::new(core::time::Duration::from_secs(s)));
        let course = Course::OPEN.after(Request::Shutdown { kill_at: late });
        let hastened = course.after(Request::Shutdown { kill_at: early });
        assert_eq!(hastened, Course::Stopping { kill_at: early });
        assert_eq!(
            hastened.after(Request::Shutdown { kill_at: late }),
            hastened
        );
        assert_eq!(hastened.after(Request::Resume), hastened);
    }
}
