//! What can go wrong in a world, and how often: all of it drawn from the seed.
//!
//! Each fault is absent from about half of the worlds, so that rare meetings of a few of them are not
//! drowned by all the others (Groce and others: Swarm Testing, 2012).

use std::time::Duration;

use wpool_pool::settings::Settings;

use crate::chance::Chance;

/// The knobs of a world. Shares are of a thousand, times in milliseconds, 0 is never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    pub(crate) seed: u64,
    pub(crate) slots: u16,
    pub(crate) queue_jobs: u64,
    pub(crate) queue_bytes: u64,
    pub(crate) share_period: u32,
    pub(crate) restart_burst: u32,
    /// Whose jobs there are: 1 to 4.
    pub(crate) tenants: u64,
    /// Tenants that may run only a few jobs at one time.
    pub(crate) tenants_held: u64,
    /// Tenants that may have only a few jobs.
    pub(crate) tenants_bounded: u64,
    /// A client submits about so often.
    pub(crate) submit_ms: u64,
    /// So many jobs at once, at most.
    pub(crate) submit_burst: u64,
    pub(crate) run_ms: u64,
    pub(crate) attempts_max: u32,
    pub(crate) ranked: u64,
    pub(crate) delayed: u64,
    pub(crate) expiring: u64,
    pub(crate) cancelled: u64,
    pub(crate) unrepeatable: u64,
    /// Jobs that are to be tried again for a reason, of each.
    pub(crate) retried: u64,
    pub(crate) spawn_fails: u64,
    pub(crate) boot_crashes: u64,
    pub(crate) boot_hangs: u64,
    pub(crate) crashes: u64,
    pub(crate) stalls: u64,
    pub(crate) violations: u64,
    pub(crate) unbuilt: u64,
    pub(crate) overruns: u64,
    pub(crate) false_stops: u64,
    pub(crate) orders_ignored: u64,
    /// Somebody kills a worker about so often.
    pub(crate) killer_ms: u64,
    /// Somebody stops a worker about so often.
    pub(crate) stopper_ms: u64,
    /// An old event comes again about so often.
    pub(crate) echo_ms: u64,
    /// An event comes that nobody sent about so often.
    pub(crate) invention_ms: u64,
    /// How long what a worker says is under way.
    pub(crate) pipe_ms: u64,
    /// How long a record takes; 0 answers at once, as without a journal.
    pub(crate) recorder_ms: u64,
    /// Records of which only the last of a group is said to be durable.
    pub(crate) recorder_groups: u64,
    /// How late the supervisor may wake up.
    pub(crate) timer_late_ms: u64,
    /// The operator asks for something about so often.
    pub(crate) operator_ms: u64,
    /// A worker is replaced after so many jobs.
    pub(crate) recycled_by_jobs: u64,
    /// A worker is replaced at such an age, in ms.
    pub(crate) recycled_by_age: u64,
    /// Whether the pool is shut down while everything goes wrong.
    pub(crate) early_shutdown: u64,
    /// Records that take seconds.
    pub(crate) recorder_stalls: u64,
    /// The supervisor crashes about so often, and begins anew with what is on record.
    pub(crate) crash_ms: u64,
    /// The clock jumps forward by up to a minute about so often, as when the machine slept.
    pub(crate) sleep_ms: u64,
    /// Events that come with an earlier time than the one before.
    pub(crate) clock_back: u64,
}

impl Knobs {
    /// The knobs of the world of `seed`.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut fault = |most: u64| {
            if chance.permille(500) {
                chance.between(1, most)
            } else {
                0
            }
        };
        Self {
            seed,
            spawn_fails: fault(300),
            boot_crashes: fault(500),
            boot_hangs: fault(200),
            crashes: fault(500),
            stalls: fault(200),
            violations: fault(100),
            unbuilt: fault(200),
            overruns: fault(200),
            false_stops: fault(100),
            orders_ignored: fault(300),
            killer_ms: fault(200),
            stopper_ms: fault(1_000),
            echo_ms: fault(100),
            invention_ms: fault(100),
            pipe_ms: fault(100),
            recorder_ms: fault(200),
            recorder_groups: fault(900),
            timer_late_ms: fault(50),
            operator_ms: fault(3_000),
            ranked: fault(800),
            delayed: fault(500),
            expiring: fault(500),
            cancelled: fault(500),
            unrepeatable: fault(300),
            retried: fault(500),
            tenants_held: fault(700),
            tenants_bounded: fault(700),
            early_shutdown: fault(500),
            recycled_by_jobs: fault(20),
            recycled_by_age: fault(3_000),
            slots: u16::try_from(chance.between(1, 5)).unwrap_or(1),
            tenants: chance.between(1, 4),
            queue_jobs: chance.between(1, 40),
            queue_bytes: chance.between(50, 3_000),
            share_period: u32::try_from(chance.between(1, 12)).unwrap_or(10),
            restart_burst: u32::try_from(chance.between(1, 6)).unwrap_or(5),
            submit_ms: chance.between(5, 400),
            submit_burst: chance.between(1, 10),
            run_ms: chance.between(1, 300),
            attempts_max: u32::try_from(chance.between(1, 5)).unwrap_or(3),
            recorder_stalls: 0,
            crash_ms: 0,
            sleep_ms: 0,
            clock_back: 0,
        }
        .with_crashes(&mut chance)
    }

    /// Draws what was added later, so that older seeds still draw the rest alike.
    fn with_crashes(self, chance: &mut Chance) -> Self {
        let mut fault = |least, most| {
            if chance.permille(300) {
                chance.between(least, most)
            } else {
                0
            }
        };
        Self {
            recorder_stalls: fault(1, 100),
            crash_ms: fault(200, 8_000),
            sleep_ms: fault(100, 10_000),
            clock_back: fault(1, 300),
            ..self
        }
    }

    /// The same world, when nothing goes wrong any more and nothing new comes.
    pub(crate) fn calm(&self) -> Self {
        Self {
            spawn_fails: 0,
            boot_crashes: 0,
            boot_hangs: 0,
            crashes: 0,
            stalls: 0,
            violations: 0,
            unbuilt: 0,
            overruns: 0,
            false_stops: 0,
            orders_ignored: 0,
            killer_ms: 0,
            stopper_ms: 0,
            echo_ms: 0,
            invention_ms: 0,
            timer_late_ms: 0,
            operator_ms: 0,
            submit_ms: 0,
            recorder_stalls: 0,
            crash_ms: 0,
            sleep_ms: 0,
            clock_back: 0,
            recycled_by_age: 0,
            ..self.clone()
        }
    }

    /// What the pool is told at first.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            queue_jobs: self.queue_jobs,
            queue_bytes: self.queue_bytes,
            share_period: self.share_period,
            restart_burst: self.restart_burst,
            restart_period: Duration::from_secs(5),
            ping_interval: Duration::from_millis(200),
            silence_max: Duration::from_millis(500),
            ready_within: Duration::from_millis(800),
            overrun_slack: Duration::from_millis(300),
            park_max: Duration::from_secs(8),
            backoff_max: Duration::from_secs(1),
            recycle_jobs: (self.recycled_by_jobs > 0).then_some(self.recycled_by_jobs),
            recycle_age: (self.recycled_by_age > 0)
                .then(|| Duration::from_millis(self.recycled_by_age)),
            ..Settings::default_for(self.slots)
        }
    }
}
