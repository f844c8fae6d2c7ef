//! CPU time of a tree against its limits: is it reached, and when to look next.
//!
//! With `cores` cores a tree uses at most `cores` ms per ms. So while `left` is left, nothing can have
//! happened before `left / cores` has passed: the next look is then, and each look that finds the limit not
//! reached leaves less. That is a handful of looks, not a rate, and the last is within 1 ms of the limit.
//!
//! # What a sampled sum does
//!
//! A child's time moves to its parent when the parent waits for it. A reading that falls between misses
//! the time (parent read first), or counts it twice (child read first, possible once pids have wrapped). So of
//! sampled sums the total is what *two* in a row have reached: neither accident happens to the same child twice.
//!
//! Children that live shorter than the time between two looks and that nobody waits for are not seen. The wall time
//! bounds them: `timeout_ms × cpus` is the most that a job can use at all.
//!
//! # Invariants
//!
//! - The total never falls, and is never above what the tree has used.
//! - The next look is never further away than the limit can be reached.

use std::time::Duration;

use wpool_protocol::limits::{LimitName, Limits};

use super::verdict::Excess;

/// The shortest time to the next look.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// A tree is idle while it uses less than this part of one core: a runtime's housekeeping is no work.
const IDLE_SHARE: u32 = 1_000;

/// How many looks fall into the time that a tree may be idle: it may take one part more to be noticed.
const IDLE_LOOKS: u32 = 8;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuFinding {
    /// No limit is reached.
    Within,
    /// The limit may be reached: look again at once.
    Unsure,
    /// A limit is reached.
    Over(Excess),
}

/// Watches the CPU time of one job. All times count from the job's start.
#[derive(Clone, Copy, Debug)]
pub struct CpuWatch {
    limit: Duration,
    /// What comes to the limit while the tree has time to clean up.
    granted: Duration,
    cores: u32,
    idle_limit: Option<Duration>,
    looked_at: Duration,
    /// What the tree has used for certain.
    total: Duration,
    /// The last sum.
    last: Duration,
    /// When the tree was last seen to work, and its sum then.
    worked_at: Duration,
    worked: Duration,
}

impl CpuWatch {
    /// For a job that may use so many cores at once.
    pub fn new(limits: &Limits, cores: u16) -> Self {
        Self {
            limit: limits.cpu_ms.into(),
            granted: Duration::ZERO,
            cores: u32::from(cores.max(1)),
            idle_limit: limits.idle_ms.map(Duration::from),
            looked_at: Duration::ZERO,
            total: Duration::ZERO,
            last: Duration::ZERO,
            worked_at: Duration::ZERO,
            worked: Duration::ZERO,
        }
    }

    /// The tree has so much time to clean up: it may use all its cores for that long, or wait.
    pub fn grant(&mut self, grace: Duration) {
        self.granted = grace.saturating_mul(self.cores);
        self.idle_limit = None;
    }

    fn limit(&self) -> Duration {
        self.limit.saturating_add(self.granted)
    }

    /// What the tree has used for certain.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// When it was last looked at.
    pub fn looked_at(&self) -> Duration {
        self.looked_at
    }

    /// Takes a total that the kernel keeps, as of a cgroup.
    pub fn told(&mut self, now: Duration, total: Duration) -> CpuFinding {
        self.total = self.total.max(total);
        self.last = self.total;
        self.judge(now)
    }

    /// Takes a sum over the processes that live.
    pub fn sampled(&mut self, now: Duration, sum: Duration) -> CpuFinding {
        self.total = self.total.max(sum.min(self.last));
        self.last = sum;
        self.judge(now)
    }

    /// Tasks were born since the last look: children that end soon do not show in a sum that counts them in ticks of 10 ms.
    pub fn births(&mut self, now: Duration) {
        (self.worked_at, self.worked) = (now, self.last.max(self.total));
    }

    fn judge(&mut self, now: Duration) -> CpuFinding {
        self.looked_at = now;
        if self.total >= self.limit() {
            return CpuFinding::Over(Excess::of_time(LimitName::Cpu, self.total, now));
        }
        let used = self.last.max(self.total);
        if used >= self.limit() {
            return CpuFinding::Unsure;
        }
        let Some(idle_limit) = self.idle_limit else {
            return CpuFinding::Within;
        };
        if used > self.worked + idle_limit / IDLE_SHARE {
            (self.worked_at, self.worked) = (now, used);
        }
        let idle = now.saturating_sub(self.worked_at);
        if idle >= idle_limit {
            CpuFinding::Over(Excess::of_time(LimitName::Idle, idle, now))
        } else {
            CpuFinding::Within
        }
    }

    /// When to look next.
    pub fn next_look(&self) -> Duration {
        let left = self.limit().saturating_sub(self.last.max(self.total));
        let reached = self.looked_at + (left / self.cores).max(LOOK_MIN);
        let Some(idle_limit) = self.idle_limit else {
            return reached;
        };
        let part = (idle_limit / IDLE_LOOKS).max(LOOK_MIN);
        let idle =
            (self.worked_at + idle_limit).clamp(self.looked_at + LOOK_MIN, self.looked_at + part);
        reached.min(idle)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wpool_protocol::quantity::Millis;

    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn limits(cpu: u64, idle: Option<u64>) -> Limits {
        Limits {
            cpu_ms: Millis(cpu),
            idle_ms: idle.map(Millis),
            ..Limits::DEFAULT
        }
    }

    #[test]
    fn a_busy_tree_is_looked_at_a_few_times_and_stopped_within_a_millisecond() {
        for busy_percent in [100, 90, 50, 10] {
            let mut watch = CpuWatch::new(&limits(1_000, None), 2);
            let mut looks = 0;
            let (now, excess) = loop {
                let now = watch.next_look();
                looks += 1;
                match watch.told(now, now * 2 * busy_percent / 100) {
                    CpuFinding::Over(excess) => break (now, excess),
                    found => assert_eq!(found, CpuFinding::Within),
                }
            };
            let earliest = ms(1_000) * 100 / (2 * busy_percent);
            assert!(now >= earliest && now <= earliest + ms(1), "{now:?}");
            assert!(looks <= 1_000 / busy_percent, "{looks} looks");
            assert_eq!(excess.limit, LimitName::Cpu);
        }
    }

    #[test]
    fn one_reading_above_the_limit_is_not_believed() {
        let mut watch = CpuWatch::new(&limits(100, None), 1);
        assert_eq!(watch.sampled(ms(70), ms(60)), CpuFinding::Within);
        assert_eq!(watch.sampled(ms(80), ms(120)), CpuFinding::Unsure);
        assert_eq!(watch.sampled(ms(80), ms(70)), CpuFinding::Within);
        assert_eq!(watch.total(), ms(70));
        assert_eq!(watch.sampled(ms(110), ms(101)), CpuFinding::Unsure);
        assert!(matches!(
            watch.sampled(ms(110), ms(101)),
            CpuFinding::Over(_)
        ));
    }

    #[test]
    fn a_tree_that_sleeps_is_idle_and_one_that_works_a_little_is_not() {
        let mut watch = CpuWatch::new(&limits(60_000, Some(400)), 1);
        let mut used = ms(5);
        loop {
            let now = watch.next_look();
            match watch.told(now, used) {
                CpuFinding::Over(excess) => {
                    assert_eq!((excess.limit, excess.peak >= 400), (LimitName::Idle, true));
                    assert!(now >= ms(1_400) && now <= ms(1_500), "{now:?}");
                    break;
                }
                CpuFinding::Within if now < ms(1_000) => used += ms(1),
                found => assert_eq!(found, CpuFinding::Within),
            }
        }
    }

    /// What a reading makes of a child that is reaped while it is taken.
    #[derive(Clone, Copy, Debug)]
    enum Accident {
        None,
        Missed(u64),
        CountedTwice(u64),
    }

    fn accident() -> impl Strategy<Value = Accident> {
        prop_oneof![
            4 => Just(Accident::None),
            1 => (1..500_u64).prop_map(Accident::Missed),
            1 => (1..500_u64).prop_map(Accident::CountedTwice),
        ]
    }

    proptest! {
        #[test]
        fn the_total_never_exceeds_what_was_used_and_never_falls(
            looks in proptest::collection::vec((0..100_u64, accident()), 0..60),
        ) {
            let mut watch = CpuWatch::new(&limits(10_000_000, None), 4);
            let (mut used, mut twice_before, mut before) = (0, false, Duration::ZERO);
            for (at, (more, accident)) in (1..).zip(looks) {
                used += more;
                let sum = match accident {
                    Accident::Missed(time) => used.saturating_sub(time),
                    Accident::CountedTwice(time) if !twice_before => used + time,
                    Accident::None | Accident::CountedTwice(_) => used,
                };
                twice_before = sum > used;
                watch.sampled(ms(at), ms(sum));
                prop_assert!(watch.total() <= ms(used));
                prop_assert!(watch.total() >= before);
                before = watch.total();
            }
            watch.sampled(ms(1_000), ms(used));
            watch.sampled(ms(1_001), ms(used));
            prop_assert_eq!(watch.total(), ms(used));
        }

        #[test]
        fn no_limit_is_reached_before_the_next_look(
            cpu in 1..100_000_u64,
            cores in 1..64_u16,
            used in 0..100_000_u64,
            at in 0..100_000_u64,
        ) {
            let mut watch = CpuWatch::new(&limits(cpu, None), cores);
            if watch.told(ms(at), ms(used)) == CpuFinding::Within {
                let passes = watch.next_look().saturating_sub(ms(at));
                let could = ms(used) + passes * u32::from(cores);
                prop_assert!(could <= ms(cpu) + LOOK_MIN * u32::from(cores));
                prop_assert!(watch.next_look() >= ms(at) + LOOK_MIN);
            }
        }
    }
}
