//! What is shown of the pool.

use wpool_protocol::outcome::JobState;
use wpool_protocol::quantity::ByteSize;
use wpool_protocol::status::{PoolState, PoolStatus, QueueLimits, SlotState, SlotStatus};

use super::Driver;
use super::obey::may_see;
use crate::request::Caller;

impl Driver {
    /// The pool at a glance. Whose jobs run is told to those who may see them.
    pub(super) fn status(&self, caller: &Caller) -> PoolStatus {
        let view = self.pool.view();
        let settings = &self.config.borrow().pool;
        let ends = JobState::ALL
            .into_iter()
            .filter(|state| state.is_terminal());
        let ended = ends.map(|state| {
            let count = self.tally.ended.get(&state).copied();
            (state, count.unwrap_or(0))
        });
        PoolStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: view.state,
            reason: self.degraded(view.state, view.parked),
            uptime_ms: millis(self.epoch.elapsed()),
            active: view.active,
            completed: self.tally.ended.values().sum(),
            last_job_at: self.tally.last_job_at,
            ended: ended.collect(),
            queued: view.queued,
            queue_pressure: view.pressure,
            workers: self.slots(caller),
            limits: QueueLimits {
                queue_jobs: settings.queue_jobs,
                queue_bytes: ByteSize(settings.queue_bytes),
            },
            isolation: self.isolation.clone(),
        }
    }

    fn slots(&self, caller: &Caller) -> Vec<SlotStatus> {
        let now = self.now();
        let slots = self.pool.slots();
        slots
            .into_iter()
            .map(|view| {
                let number = usize::from(view.worker.slot.0);
                let seat = self.seats.get(number).and_then(Option::as_ref);
                let trouble = self.troubles.get(number).and_then(Option::as_ref);
                let job = view.attempt.map(|attempt| attempt.job).filter(|id| {
                    let job = self.register.live.get(id);
                    job.is_some_and(|job| may_see(caller, &job.request.tenant))
                });
                SlotStatus {
                    slot: view.worker.slot,
                    generation: view.worker.generation,
                    state: view.state,
                    job,
                    since_ms: millis(now.since(view.since)),
                    jobs_done: view.jobs_done,
                    crashes: view.crashes,
                    pid: seat.map(|seat| seat.pid),
                    reason: match view.state {
                        SlotState::Parked | SlotState::Starting => trouble.cloned(),
                        SlotState::Idle | SlotState::Busy | SlotState::Recycling => None,
                    },
                }
            })
            .collect()
    }

    fn degraded(&self, state: PoolState, parked: u16) -> Option<String> {
        match state {
            PoolState::Degraded => {}
            PoolState::Running | PoolState::Paused | PoolState::Draining | PoolState::Stopping => {
                return None;
            }
        }
        let slots = self.pool.slots();
        let ill = slots
            .iter()
            .filter(|slot| slot.parked_until.is_some() || slot.parked_by.is_some());
        let mut troubles = ill.filter_map(|slot| {
            let trouble = self.troubles.get(usize::from(slot.worker.slot.0))?;
            trouble.as_ref()
        });
        let why = troubles.next();
        let why = why.map_or(
            "workers end before they are ready, right after, or because a job's box failed",
            String::as_str,
        );
        let slots = slots.len();
        let on_probation = self.pool.view().on_probation;
        Some(match parked {
            0 => format!(
                "{on_probation} of {slots} slots were parked, and are tried with one worker: {why}"
            ),
            parked => format!("{parked} of {slots} slots are parked: {why}"),
        })
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
