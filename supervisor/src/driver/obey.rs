//! What clients and signals ask.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wpool_pool::event::{DrainScope, Event};
use wpool_protocol::id::{JobId, SlotId};
use wpool_protocol::status::Submitted;

use super::Driver;
use super::command::{
    Acceptance, Command, Deleted, KeyTaken, NotAccepted, PoolOrder, SubmitAnswer, Watched,
};
use super::job::Job;
use crate::config::Reload;
use crate::request::{Caller, ResolvedJob, Role};

/// How long killed workers may take to die when somebody could not wait for an orderly end. The kernel
/// needs some ten ms for the largest tree; what takes longer hangs in it.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// Jobs that are cleared away before anybody else is served: less than a millisecond of the driver's thread.
const CLEARED_AT_ONCE: u32 = 100;

/// A clearing of the queue that goes on.
#[derive(Debug)]
pub(super) struct Clearing {
    /// Jobs that were submitted until it was asked for.
    submitted: u64,
    cleared: u64,
    reply: oneshot::Sender<u64>,
}

/// Names of waiting jobs that the log shows when they end with the supervisor.
const LOST_SHOWN_MAX: usize = 100;

impl Driver {
    pub(super) fn obey(&mut self, command: Command) {
        // A client that has gone meanwhile has no use for the answer: that is no error anywhere below.
        match command {
            Command::Submit(request, reply) => self.submit(*request, reply),
            Command::Delete(id, caller, reply) => drop(reply.send(self.delete(id, &caller))),
            Command::Watch(id, caller, reply) => drop(reply.send(self.watch(id, &caller))),
            Command::Read(reader, reply) => drop(reply.send(self.read(&reader))),
            Command::Release(id, caller, reply) => drop(reply.send(self.release(id, &caller))),
            Command::Discard(id, caller, reply) => drop(reply.send(self.discard(id, &caller))),
            Command::List(filter, reply) => drop(reply.send(self.register.page(&filter))),
            Command::Explain(id, caller, reply) => drop(reply.send(self.explain(id, &caller))),
            Command::ExplainPool(caller, reply) => drop(reply.send(self.explain_pool(&caller))),
            Command::Status(caller, reply) => drop(reply.send(self.status(&caller))),
            Command::Order(order, reply) => {
                tracing::info!(?order, "the pool is told");
                self.take_in(match order {
                    PoolOrder::Pause => Event::PauseRequested,
                    PoolOrder::Resume => Event::ResumeRequested,
                    PoolOrder::Drain => Event::DrainRequested(DrainScope::Running),
                    PoolOrder::DrainQueued => Event::DrainRequested(DrainScope::Queued),
                    PoolOrder::Resize(slots) => Event::ResizeRequested(slots),
                    PoolOrder::Recycle => Event::RecycleRequested,
                });
                reply.send(()).unwrap_or_default();
            }
            Command::Clear(reply) => self.clearings.push(Clearing {
                submitted: self.pool.submitted(),
                cleared: 0,
                reply,
            }),
            Command::Configure(reload) => {
                self.notifier.reloading();
                match reload {
                    Ok(reload) => self.configure(*reload),
                    Err(error) => {
                        tracing::error!(error, "the config is refused, the old one holds");
                    }
                }
                self.notifier.reloaded();
            }
            Command::Shutdown => self.shut_down(),
            Command::StopAtOnce => self.stop_at_once(),
        }
    }

    fn submit(&mut self, request: ResolvedJob, reply: oneshot::Sender<SubmitAnswer>) {
        if let Some(answer) = self.known(&request) {
            drop(reply.send(answer));
            return;
        }
        self.last_id = self.last_id.next();
        let id = self.last_id;
        let new = request.for_pool(id);
        let job = Job::new(id, request, Self::wall_clock(), reply);
        self.register.add(job);
        self.take_in(Event::JobSubmitted(new));
    }

    /// The answer to a request whose key has been seen.
    fn known(&self, request: &ResolvedJob) -> Option<SubmitAnswer> {
        let (key, mark) = request.key.as_ref()?;
        let (id, known_mark) = self.register.keyed(&request.tenant, key)?;
        let (state, command) = if let Some(job) = self.register.live.get(&id) {
            (job.state(), &job.request.command)
        } else {
            let kept = self.register.ended(id)?;
            (kept.outcome.state, &kept.command)
        };
        if known_mark != *mark {
            return Some(Err(NotAccepted::KeyTaken(Box::new(KeyTaken {
                key: key.clone(),
                id,
                command: Arc::clone(command),
                new_command: Arc::clone(&request.command),
            }))));
        }
        Some(Ok(Acceptance::Known(Submitted { id, state })))
    }

    fn delete(&mut self, id: JobId, caller: &Caller) -> Option<Deleted> {
        if let Some(job) = self.visible_job(id, caller) {
            let state = job.state();
            tracing::debug!(job = %id, "somebody asks for its end");
            self.take_in(Event::CancelRequested(id));
            // A job that waited has ended by now.
            let ended = self.register.ended(id).map(|kept| kept.outcome.state);
            return Some(Deleted::Asked(ended.unwrap_or(state)));
        }
        let kept = self.register.ended(id)?;
        if !may_see(caller, &kept.outcome.tenant) {
            return None;
        }
        self.register.forget(id);
        Some(Deleted::Forgotten)
    }

    fn watch(&mut self, id: JobId, caller: &Caller) -> Option<Watched> {
        if let Some(job) = self.visible_job(id, caller) {
            return Some(Watched::Live(job.watch()));
        }
        let kept = self.register.ended(id)?;
        let outcome = Arc::clone(&kept.outcome);
        may_see(caller, &outcome.tenant).then_some(Watched::Ended(outcome))
    }

    /// A job that has not ended and that the caller may know of.
    pub(super) fn visible_job(&mut self, id: JobId, caller: &Caller) -> Option<&mut Job> {
        let job = self.register.live.get_mut(&id)?;
        (job.is_visible() && may_see(caller, &job.request.tenant)).then_some(job)
    }

    fn configure(&mut self, reload: Reload) {
        for key in &reload.need_restart {
            tracing::warn!(key, "the config's new value holds from the next start on");
        }
        let config = Arc::new(reload.config);
        if config.pool.slots != self.config.borrow().pool.slots {
            self.take_in(Event::ResizeRequested(config.pool.slots));
        }
        let now = self.now();
        self.register.set_retention(now, config.retention);
        self.take_in(Event::SettingsChanged(Box::new(config.pool)));
        self.take_in(Event::TenantRulesChanged(config.tenants.clone()));
        self.config.send_replace(config);
        tracing::info!("the config was read again");
    }

    /// A seat for this slot; those that go are emptied by their workers' ends.
    pub(super) fn make_room(&mut self, slot: SlotId) {
        let wanted = (usize::from(slot.0) + 1).max(self.seats.len());
        self.seats.resize_with(wanted, || None);
        self.troubles.resize(wanted, None);
    }

    /// Ends some of the jobs that are to be cleared away, and says so when there are no more.
    pub(super) fn clear_some(&mut self) {
        let Some(clearing) = self.clearings.first_mut() else {
            return;
        };
        let submitted = clearing.submitted;
        let before = self.tally.cleared;
        self.take_in(Event::ClearRequested {
            submitted,
            most: CLEARED_AT_ONCE,
        });
        let cleared = self.tally.cleared - before;
        if let Some(clearing) = self.clearings.first_mut() {
            clearing.cleared += cleared;
        }
        if cleared < u64::from(CLEARED_AT_ONCE) {
            let Clearing { cleared, reply, .. } = self.clearings.remove(0);
            tracing::info!(cleared, "the queue was cleared");
            // A client that has gone meanwhile has cleared it all the same.
            reply.send(cleared).unwrap_or_default();
        }
    }

    fn shut_down(&mut self) {
        let grace = self.config.borrow().grace;
        let waiting = self.register.live.values();
        let waiting: Vec<_> = waiting.filter(|job| job.run.is_none()).collect();
        if !waiting.is_empty() {
            let names = waiting.iter().take(LOST_SHOWN_MAX);
            let names: Vec<_> = names.map(|job| job.id.to_string()).collect();
            tracing::warn!(
                count = waiting.len(),
                jobs = names.join(" "),
                "jobs that wait end as cancelled: no journal keeps them"
            );
        }
        tracing::info!(grace_ms = grace.as_millis(), "shutting down");
        self.notifier.stopping(grace);
        self.take_in(Event::ShutdownRequested { grace });
    }

    /// What runs is killed, and its outcome told; whoever asks again does not even wait for that.
    fn stop_at_once(&mut self) {
        let patience = match self.interrupted {
            None => KILLED_WITHIN,
            Some(_) => Duration::ZERO,
        };
        tracing::info!("what still runs is killed");
        self.interrupted = Some(tokio::time::Instant::now() + patience);
        self.take_in(Event::ShutdownRequested {
            grace: Duration::ZERO,
        });
    }
}

/// Whether a caller may know of a tenant's jobs.
pub(super) fn may_see(caller: &Caller, tenant: &str) -> bool {
    match caller.role {
        Role::Admin => true,
        Role::Submitter => *caller.tenant == *tenant,
    }
}
