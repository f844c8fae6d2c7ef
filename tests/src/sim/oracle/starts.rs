//! What is promised about starts: which job, where, and none too late.

use std::collections::BTreeMap;

use wpool_pool::event::DrainScope;
use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::Priority;

use crate::sim::oracle::seats::Seated;
use crate::sim::oracle::{JobFile, Oracle, Place, Verdict};
use crate::sim::process::Reality;

/// The head of each class that waits, and how many starts went to others since it became the head.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    heads: BTreeMap<Priority, (JobId, u32)>,
}

impl Oracle {
    pub(super) fn judge_assign(
        &mut self,
        worker: WorkerRef,
        attempt: AttemptRef,
        reality: &impl Reality,
    ) -> Verdict {
        require!(
            self.may_start(),
            "{attempt} is started although the pool holds"
        );
        require!(
            !reality.runs(attempt.job),
            "{attempt} is started while another run of it goes on"
        );
        let least = self
            .seats
            .values()
            .filter(|seat| matches!(seat.state, Seated::Free))
            .map(|seat| (seat.worked, seat.worker.slot))
            .min();
        require!(
            least.is_some_and(|(_, slot)| slot == worker.slot),
            "{attempt} does not go to the idle worker that has worked least"
        );
        let now = self.now;
        let file = self.file(attempt.job)?;
        require!(
            file.place == Place::Waiting,
            "{attempt} is started and is {file:?}"
        );
        require!(file.not_before <= now, "{attempt} is started too early");
        file.runs += 1;
        require!(
            attempt.attempt.0.get() == file.runs,
            "{attempt} is the job's run number {}",
            file.runs
        );
        require!(
            file.runs <= file.new.attempts_max,
            "I3: {attempt} is one run too many"
        );
        self.judge_order(attempt.job)?;
        self.file(attempt.job)?.place = Place::Running(worker);
        self.seat_job(worker, attempt)?;
        self.summary.runs += 1;
        Ok(())
    }

    /// The job is the head of its class, and no other class has been passed over for too long.
    fn judge_order(&mut self, id: JobId) -> Verdict {
        let heads = self.heads();
        let priority = self.file(id)?.new.priority;
        require!(
            heads.get(&priority) == Some(&id),
            "{id} is started before {:?}, the head of its class",
            heads.get(&priority)
        );
        let bound = self.settings.share_period.max(3);
        let mut counted = BTreeMap::new();
        for (class, head) in heads {
            let passed = match self.starts.heads.get(&class) {
                Some(&(old, passed)) if old == head => passed,
                Some(_) | None => 0,
            };
            if class == priority {
                continue;
            }
            require!(
                passed + 1 < bound || class == Priority::High,
                "{head}, head of class {class}, was passed over by {bound} starts"
            );
            counted.insert(class, (head, passed + 1));
        }
        self.starts.heads = counted;
        Ok(())
    }

    /// What may start goes first where nothing holds it back (I7).
    pub(super) fn settle_starts(&mut self) -> Verdict {
        let heads = self.heads();
        let still_head =
            |class: &Priority, head: &mut (JobId, u32)| heads.get(class) == Some(&head.0);
        self.starts.heads.retain(still_head);
        let free = self
            .seats
            .values()
            .find(|seat| matches!(seat.state, Seated::Free));
        if let Some(seat) = free.filter(|_| self.may_start()) {
            require!(
                heads.is_empty(),
                "I7: {} idles beside {heads:?}",
                seat.worker
            );
        }
        Ok(())
    }

    /// The first of each class that could start now.
    fn heads(&self) -> BTreeMap<Priority, JobId> {
        let ready = |job: &&JobFile| job.place == Place::Waiting && job.not_before <= self.now;
        let mut first: BTreeMap<Priority, &JobFile> = BTreeMap::new();
        for job in self.jobs.values().filter(ready) {
            let head = first.entry(job.new.priority).or_insert(job);
            if (-i64::from(job.new.rank), job.arrival) < (-i64::from(head.new.rank), head.arrival) {
                *head = job;
            }
        }
        first
            .into_iter()
            .map(|(priority, job)| (priority, job.new.id))
            .collect()
    }

    const fn may_start(&self) -> bool {
        !self.paused && self.kill_at.is_none() && !matches!(self.drain, Some(DrainScope::Running))
    }
}
