//! What a job costs the pool when very many wait: time an event, as a ratio, and memory.
//!
//! ```text
//! cargo bench -p wpool-pool
//! ```
//!
//! Two pools, one with a thousand jobs waiting and one with a million, take turns: in each a job ends, the next one starts, and a new one
//! is submitted. The ratio is that of the medians of a few hundred such turns, so that what else the machine does meets both alike.
//! Memory is told twice: of a million jobs that came in a row, and of those that stay when most of the others have gone.
//!
//! It is measured for several loads, and exits with 1 if one is above what docs/SCHEDULING.md says of it.

#![expect(clippy::print_stdout, reason = "a benchmark says what it found")]

use std::num::NonZeroU32;
use std::time::{Duration, Instant as Clock};

use peak_alloc::PeakAlloc;
use wpool_pool::action::{Action, Actions};
use wpool_pool::event::{Event, JobEnd, NewJob, RetryRule};
use wpool_pool::pool::Pool;
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId, WorkerRef};
use wpool_protocol::job::Priority;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SLOTS: u16 = 8;
const TENANTS: u64 = 64;
const SMALL: u64 = 1_000;
const LARGE: u64 = 1_000_000;

/// Jobs that come and go in one turn.
const TURN: u64 = 500;
const TURNS: usize = 400;

/// What comes.
struct Kind {
    name: &'static str,
    /// The rank of a job, by its number.
    rank: fn(u64) -> u64,
    /// How long those that wait are not to start: what comes and goes in the turns starts at once then.
    delay: Duration,
    /// The ratio that is promised.
    ratio_max: f64,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "a few ranks",
        rank: |id| id % 7,
        delay: Duration::ZERO,
        ratio_max: 1.5,
    },
    Kind {
        name: "one rank",
        rank: |_| 0,
        delay: Duration::ZERO,
        ratio_max: 1.5,
    },
    Kind {
        name: "all delayed",
        rank: |id| id % 7,
        delay: Duration::from_hours(1),
        ratio_max: 2.0,
    },
    Kind {
        name: "a rank for each job",
        // Scattered over the whole range, as a deadline or a score is (Fibonacci hashing).
        rank: |id| id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33,
        delay: Duration::ZERO,
        ratio_max: 3.0,
    },
];

/// Bytes that a waiting job takes at most.
const BYTES_MAX: usize = 400;

/// Whether jobs are there to wait, or to come and go.
enum Stage {
    Filling,
    Turning,
}

/// A pool under load, whose recorder answers at once.
struct Load {
    kind: &'static Kind,
    stage: Stage,
    pool: Pool,
    now: Duration,
    next_job: u64,
    running: Vec<(WorkerRef, AttemptRef)>,
    events: u64,
}

impl Load {
    fn new(kind: &'static Kind, waiting: u64) -> Self {
        let settings = Settings {
            queue_jobs: u64::MAX,
            queue_bytes: u64::MAX,
            ..Settings::default_for(SLOTS)
        };
        let mut load = Self {
            kind,
            stage: Stage::Filling,
            pool: Pool::new(settings, 1),
            now: Duration::ZERO,
            next_job: 1,
            running: Vec::new(),
            events: 0,
        };
        load.give(Event::TimeReached);
        for _ in 0..waiting + u64::from(SLOTS) {
            load.submit();
        }
        load.stage = Stage::Turning;
        load
    }

    fn give(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.events += 1;
            self.now += Duration::from_micros(10);
            let mut actions = Actions::new();
            self.pool
                .handle(Instant::new(self.now), event, &mut actions);
            for action in actions {
                match action {
                    Action::Record(id, _) => events.push(Event::RecordSynced(id)),
                    Action::Spawn(worker) => events.push(Event::WorkerReady(worker)),
                    Action::Assign(worker, attempt) => {
                        self.running.push((worker, attempt));
                        events.push(Event::JobStarted(worker, attempt));
                    }
                    Action::Ping(worker, number) => {
                        events.push(Event::PingAnswered(worker, number));
                    }
                    _ => {}
                }
            }
        }
    }

    fn submit(&mut self) {
        let id = self.next_job;
        self.next_job += 1;
        let [high, normal, low] = Priority::ALL;
        self.give(Event::JobSubmitted(NewJob {
            id: JobId(id),
            tenant: format!("uid:{}", id % TENANTS),
            priority: match id % 10 {
                0..3 => high,
                3..9 => normal,
                _ => low,
            },
            rank: i32::try_from((self.kind.rank)(id)).unwrap_or(0),
            bytes: 1_000,
            run_time_max: Duration::from_hours(1),
            delay: match self.stage {
                Stage::Filling if self.running.len() == usize::from(SLOTS) => self.kind.delay,
                Stage::Filling | Stage::Turning => Duration::ZERO,
            },
            start_within: None,
            attempts_max: 3,
            retry_on: RetryRule::WORKER_LOST,
        }));
    }

    /// So many jobs end, start and come; how long one event took.
    fn turn(&mut self) -> Duration {
        let (began, before) = (Clock::now(), self.events);
        for _ in 0..TURN {
            // Jobs start in an order and end in it: the queue of those that run is short.
            let (worker, attempt) = self.running.remove(0);
            self.give(Event::JobEnded(worker, attempt, JobEnd::Succeeded));
            self.submit();
        }
        began.elapsed() / u32::try_from(self.events - before).unwrap_or(u32::MAX)
    }
}

/// Bytes of each job that waits when of so many all but one have been cancelled.
fn memory_of_survivors(kind: &'static Kind, one_in: u64) -> usize {
    const SURVIVORS: u64 = 20_000;
    let before = MEMORY.current_usage();
    let mut load = Load::new(kind, SURVIVORS * one_in);
    let ids = (1..=SURVIVORS * one_in).filter(|id| !id.is_multiple_of(one_in));
    for id in ids {
        load.give(Event::CancelRequested(JobId(id)));
    }
    let taken = MEMORY.current_usage() - before;
    drop(load);
    taken / usize::try_from(SURVIVORS).unwrap_or(1)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    // What cargo asks of every test program.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let kept: Vec<bool> = KINDS.iter().map(measure).collect();
    if kept.contains(&false) {
        std::process::exit(1);
    }
}

/// Measures one load; whether what is promised of it holds.
fn measure(kind: &'static Kind) -> bool {
    let mut small = Load::new(kind, SMALL);
    let before = MEMORY.current_usage();
    let mut large = Load::new(kind, LARGE);
    let taken = MEMORY.current_usage() - before;
    let (mut of_small, mut of_large) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        of_small.push(small.turn());
        of_large.push(large.turn());
    }
    let first = AttemptNumber(NonZeroU32::MIN);
    assert!(
        large.running.iter().all(|(_, run)| run.attempt == first),
        "every job runs once"
    );
    let (of_small, of_large) = (median(of_small), median(of_large));
    let ratio = of_large.as_secs_f64() / of_small.as_secs_f64();
    let bytes = taken / usize::try_from(LARGE).unwrap_or(1);
    let sparse = [8, 64].map(|one_in| memory_of_survivors(kind, one_in));
    let [of_8, of_64] = sparse;
    println!("{}:", kind.name);
    println!("  an event with {SMALL} jobs waiting: {of_small:?}");
    println!("  an event with {LARGE} jobs waiting: {of_large:?}");
    println!("  ratio: {ratio:.2} (at most {})", kind.ratio_max);
    println!(
        "  memory of a waiting job: {bytes} bytes (at most {BYTES_MAX}); where of 8 jobs one stays {of_8}, of 64 {of_64}"
    );
    ratio <= kind.ratio_max && bytes.max(of_8).max(of_64) <= BYTES_MAX
}
