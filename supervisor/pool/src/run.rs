//! One run of a job in a slot, and the moments until which its worker must show itself.
//!
//! ```text
//!            started within silence_max       run_time_max + overrun_slack
//!   assigned ─────────────────────────▶ started ─────────────────────────▶ ended
//!      └─ ping ─ answered within silence_max ─ ping_interval ─ ping ─ … ───┘
//!                       stop ─ ended within overrun_slack, instead of the above
//! ```

use core::time::Duration;

use serde::{Deserialize, Serialize};
use wpool_protocol::id::AttemptRef;

use crate::action::KillReason;
use crate::alarms::later;
use crate::settings::Settings;
use crate::time::Instant;

/// One run of a job in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) attempt: AttemptRef,
    pub(crate) began: Instant,
    pub(crate) started: Started,
    pub(crate) stop: Stop,
    pub(crate) ping: Ping,
}

/// Whether the job's program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Started {
    /// Not yet: it must by then.
    By(Instant),
    /// Yes: it must have ended by then.
    EndBy(Instant),
}

/// Whether somebody asked for the job's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stop {
    NotAsked,
    /// Yes: it must have ended by then.
    By(Instant),
}

/// Whether the worker has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ping {
    /// It has: the next ping is due then.
    At(Instant),
    /// It has not answered this one: it must by then.
    Asked { number: u64, by: Instant },
}

/// What is to be done about a run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Kill(KillReason),
    Ping,
    Nothing,
}

impl Run {
    /// A run that begins now, with this ping sent after it.
    pub(crate) fn new(now: Instant, attempt: AttemptRef, ping: u64, settings: &Settings) -> Self {
        let by = later(now, settings.silence_max);
        Self {
            attempt,
            began: now,
            started: Started::By(by),
            stop: Stop::NotAsked,
            ping: Ping::Asked { number: ping, by },
        }
    }

    /// The job's program runs, and may for `run_time_max`.
    pub(crate) fn start(&mut self, now: Instant, run_time_max: Duration, settings: &Settings) {
        let end_by = later(now, run_time_max.saturating_add(settings.overrun_slack));
        self.started = Started::EndBy(end_by);
    }

    /// The worker is told to end the job; whether it had not been before.
    pub(crate) fn stop(&mut self, now: Instant, settings: &Settings) -> bool {
        match self.stop {
            Stop::By(_) => false,
            Stop::NotAsked => {
                self.stop = Stop::By(later(now, settings.overrun_slack));
                true
            }
        }
    }

    pub(crate) fn ping(&mut self, now: Instant, number: u64, settings: &Settings) {
        let by = later(now, settings.silence_max);
        self.ping = Ping::Asked { number, by };
    }

    /// The worker answers a ping; whether it was the last one.
    pub(crate) fn answer(&mut self, now: Instant, answered: u64, settings: &Settings) -> bool {
        match self.ping {
            Ping::Asked { number, .. } if number == answered => {
                self.ping = Ping::At(later(now, settings.ping_interval));
                true
            }
            Ping::Asked { .. } | Ping::At(_) => false,
        }
    }

    /// When something is due.
    pub(crate) fn alarm(&self) -> Instant {
        let ping = match self.ping {
            Ping::At(at) => at,
            Ping::Asked { by, .. } => by,
        };
        let progress = match (self.started, self.stop) {
            (Started::By(by), Stop::By(stop)) => by.min(stop),
            (Started::EndBy(_), Stop::By(by))
            | (Started::By(by) | Started::EndBy(by), Stop::NotAsked) => by,
        };
        ping.min(progress)
    }

    /// What is due; of several things the one that says most about the job.
    pub(crate) fn due(&self, now: Instant) -> Due {
        match (self.started, self.stop) {
            (_, Stop::By(by)) if by <= now => return Due::Kill(KillReason::StopIgnored),
            (Started::EndBy(by), Stop::NotAsked) if by <= now => {
                return Due::Kill(KillReason::Overrun);
            }
            (Started::By(by), Stop::By(_) | Stop::NotAsked) if by <= now => {
                return Due::Kill(KillReason::Silent);
            }
            (Started::By(_) | Started::EndBy(_), Stop::By(_) | Stop::NotAsked) => {}
        }
        match self.ping {
            Ping::Asked { by, .. } if by <= now => Due::Kill(KillReason::Silent),
            Ping::At(at) if at <= now => Due::Ping,
            Ping::Asked { .. } | Ping::At(_) => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use wpool_protocol::id::{AttemptNumber, JobId};

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::new(Duration::from_secs(seconds))
    }

    fn run() -> Run {
        let attempt = AttemptRef {
            job: JobId(1),
            attempt: AttemptNumber(NonZeroU32::MIN),
        };
        Run::new(at(0), attempt, 1, &Settings::default_for(1))
    }

    #[test]
    fn a_worker_that_neither_answers_nor_starts_is_silent_after_silence_max() {
        let mut run = run();
        assert_eq!(run.alarm(), at(5));
        assert_eq!(run.due(at(4)), Due::Nothing);
        assert_eq!(run.due(at(5)), Due::Kill(KillReason::Silent));
        assert!(run.answer(at(1), 1, &Settings::default_for(1)));
        assert_eq!(run.due(at(5)), Due::Kill(KillReason::Silent));
    }

    #[test]
    fn an_answer_to_an_earlier_ping_is_none() {
        let settings = Settings::default_for(1);
        let mut run = run();
        assert!(run.answer(at(1), 1, &settings));
        assert_eq!(run.due(at(2)), Due::Ping);
        run.ping(at(2), 2, &settings);
        assert!(!run.answer(at(3), 1, &settings));
        assert_eq!(run.due(at(7)), Due::Kill(KillReason::Silent));
    }

    #[test]
    fn an_order_to_stop_replaces_the_wall_time() {
        let settings = Settings::default_for(1);
        let mut run = run();
        run.start(at(0), Duration::from_secs(1), &settings);
        assert!(run.answer(at(5), 1, &settings));
        assert_eq!(run.due(at(6)), Due::Kill(KillReason::Overrun));
        assert!(run.stop(at(5), &settings));
        assert!(!run.stop(at(6), &settings));
        assert_eq!(run.due(at(6)), Due::Ping);
        assert_eq!(run.due(at(10)), Due::Kill(KillReason::StopIgnored));
    }
}
