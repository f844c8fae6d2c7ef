//! What is promised about starts: which job, where, and none too late.

use std::collections::BTreeMap;

use wpool_pool::event::DrainScope;
use wpool_protocol::id::{AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::Priority;

use crate::sim::oracle::seats::Seated;
use crate::sim::oracle::{JobFile, Oracle, Place, Verdict};
use crate::sim::process::Reality;

/// What was started, as far as the next starts depend on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    /// Starts that went to others while a class waited, since one was its own or it had no jobs.
    passed: BTreeMap<Priority, u32>,
    /// Of each class and each two tenants that both could start jobs there since: what they started.
    shares: BTreeMap<(Priority, String, String), (u64, u64)>,
}

/// What a start costs a tenant of weight 1: a number that all weights divide.
const UNIT: u64 = 720_720;

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
        self.judge_order(worker, attempt.job)?;
        let tenant = self.file(attempt.job)?.new.tenant.clone();
        let runs =
            |file: &&JobFile| matches!(file.place, Place::Running(_)) && file.new.tenant == tenant;
        let running = self.jobs.values().filter(runs).count();
        require!(
            self.rules
                .of(&tenant)
                .running_max
                .is_none_or(|max| running <= max as usize),
            "{attempt} makes {running} jobs of {tenant} run at one time"
        );
        self.seat_job(worker, attempt)?;
        self.summary.runs += 1;
        Ok(())
    }

    /// The job is the first of its tenant, no class has been passed over for too long, and no tenant is ahead of another.
    fn judge_order(&mut self, worker: WorkerRef, id: JobId) -> Verdict {
        let new = self.file(id)?.new.clone();
        // Somebody's last job may have expired or been cleared away by this very event.
        self.take_stock();
        let key = (new.priority, new.tenant.clone());
        let heads = self.heads();
        require!(
            heads.get(&key) == Some(&id),
            "{id} is started before {:?}, the first of its tenant and class that may",
            heads.get(&key)
        );
        self.file(id)?.place = Place::Running(worker);
        let waiting = self.heads();
        let bound = self.settings.share_period.max(3);
        for class in Priority::ALL {
            let mut jobs = self.jobs.values();
            let has_jobs = jobs.any(|job| {
                job.new.priority == class
                    && job.place == Place::Waiting
                    && job.not_before <= self.now
            });
            if class == new.priority || !has_jobs {
                self.starts.passed.remove(&class);
                continue;
            }
            if !waiting.keys().any(|(of, _)| *of == class) {
                continue;
            }
            let passed = self.starts.passed.entry(class).or_default();
            *passed += 1;
            require!(
                *passed < bound || class == Priority::High,
                "class {class} waits and was passed over by {bound} starts"
            );
        }
        let (rules, class) = (&self.rules, new.priority);
        let cost = |tenant: &str| UNIT / u64::from(rules.of(tenant).weight);
        for ((of, a, b), (started_a, started_b)) in &mut self.starts.shares {
            if *of != class {
                continue;
            }
            *started_a += if *a == new.tenant { cost(a) } else { 0 };
            *started_b += if *b == new.tenant { cost(b) } else { 0 };
            require!(
                started_a.abs_diff(*started_b) <= cost(a) + cost(b),
                "tenants {a} and {b} have started {started_a} and {started_b} parts of class {class}"
            );
        }
        self.take_stock();
        Ok(())
    }

    /// What may start goes first where nothing holds it back (I7).
    pub(super) fn settle_starts(&mut self) -> Verdict {
        self.take_stock();
        let free = self
            .seats
            .values()
            .find(|seat| matches!(seat.state, Seated::Free));
        if let Some(seat) = free.filter(|_| self.may_start()) {
            let heads = self.heads();
            require!(
                heads.is_empty(),
                "I7: {} idles beside {heads:?}",
                seat.worker
            );
        }
        Ok(())
    }

    /// Which tenants could start jobs beside each other.
    fn take_stock(&mut self) {
        let heads = self.heads();
        let could = |class: Priority, tenant: &str| heads.contains_key(&(class, tenant.to_owned()));
        self.starts
            .shares
            .retain(|(class, a, b), _| could(*class, a) && could(*class, b));
        for (class, a) in heads.keys() {
            for (_, b) in heads.keys().filter(|(of, b)| of == class && a < b) {
                let pair = (*class, a.clone(), b.clone());
                self.starts.shares.entry(pair).or_default();
            }
        }
    }

    /// Of each class and tenant the first job that could start now.
    fn heads(&self) -> BTreeMap<(Priority, String), JobId> {
        let mut running: BTreeMap<&str, u32> = BTreeMap::new();
        for job in self.jobs.values() {
            let runs = matches!(job.place, Place::Running(_));
            *running.entry(&job.new.tenant).or_default() += u32::from(runs);
        }
        let may = |tenant: &str| {
            let max = self.rules.of(tenant).running_max;
            max.is_none_or(|max| running[tenant] < max)
        };
        let ready = |job: &&JobFile| {
            job.place == Place::Waiting && job.not_before <= self.now && may(&job.new.tenant)
        };
        let mut first: BTreeMap<(Priority, String), &JobFile> = BTreeMap::new();
        for job in self.jobs.values().filter(ready) {
            let key = (job.new.priority, job.new.tenant.clone());
            let head = first.entry(key).or_insert(job);
            if (-i64::from(job.new.rank), job.arrival) < (-i64::from(head.new.rank), head.arrival) {
                *head = job;
            }
        }
        first
            .into_iter()
            .map(|(key, job)| (key, job.new.id))
            .collect()
    }

    const fn may_start(&self) -> bool {
        !self.paused && self.kill_at.is_none() && !matches!(self.drain, Some(DrainScope::Running))
    }
}
