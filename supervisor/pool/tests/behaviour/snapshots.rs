//! Any history: the same twice, and the same from a snapshot taken in its midst.

use std::time::Duration;

use proptest::prelude::*;
use wpool_pool::action::{Action, Actions, RecordId};
use wpool_pool::event::{DrainScope, Event, JobEnd, NewJob, RetryRule};
use wpool_pool::pool::Pool;
use wpool_pool::settings::Settings;
use wpool_pool::snapshot::{RestoreError, Snapshot};
use wpool_pool::time::Instant;
use wpool_protocol::id::JobId;
use wpool_protocol::job::Priority;

use super::story::{attempt, job, worker};

fn settings() -> Settings {
    Settings {
        queue_jobs: 8,
        restart_burst: 2,
        ..Settings::default_for(2)
    }
}

/// Events about few jobs, slots, generations and runs, so that many of them meet.
fn arb_event() -> impl Strategy<Value = Event> {
    let workers = || (0u16..2, 1u32..5).prop_map(|(slot, generation)| worker(slot, generation));
    let runs = || (0u64..24, 1u32..3).prop_map(|(job, number)| attempt(job, number));
    let end = prop::sample::select(vec![
        JobEnd::Succeeded,
        JobEnd::Stopped,
        JobEnd::BoxFailed,
        JobEnd::TimedOut,
    ]);
    prop_oneof![
        4 => workers().prop_map(Event::WorkerReady),
        2 => workers().prop_map(Event::WorkerExited),
        1 => workers().prop_map(Event::WorkerViolated),
        1 => workers().prop_map(Event::SpawnFailed),
        2 => (workers(), 1u64..4).prop_map(|(worker, ping)| Event::PingAnswered(worker, ping)),
        3 => (workers(), runs()).prop_map(|(worker, run)| Event::JobStarted(worker, run)),
        5 => (workers(), runs(), end).prop_map(|(worker, run, end)| Event::JobEnded(worker, run, end)),
        8 => (1u64..40).prop_map(|id| Event::RecordSynced(RecordId(id))),
        2 => (0u64..24).prop_map(|id| Event::CancelRequested(JobId(id))),
        3 => Just(Event::TimeReached),
        1 => Just(Event::PauseRequested),
        2 => Just(Event::ResumeRequested),
        1 => Just(Event::DrainRequested(DrainScope::Running)),
    ]
}

fn arb_job() -> impl Strategy<Value = Event> {
    (0u64..3, 0usize..3, -1i32..2, any::<bool>()).prop_map(|(delay, priority, rank, once)| {
        let new = NewJob {
            delay: Duration::from_millis(delay * 40),
            start_within: (rank == 0).then_some(Duration::from_millis(60)),
            priority: Priority::ALL[priority],
            rank,
            retry_on: if once {
                RetryRule::NEVER
            } else {
                RetryRule::WORKER_LOST
            },
            ..job(0)
        };
        Event::JobSubmitted(new)
    })
}

/// Events with the time that passes before each; submitted jobs are numbered.
fn arb_history(events: usize) -> impl Strategy<Value = Vec<(Duration, Event)>> {
    let step = (0u64..30, prop_oneof![3 => arb_event(), 1 => arb_job()]);
    prop::collection::vec(step, 1..events).prop_map(|steps| {
        let mut next = 0;
        let number = |(millis, mut event)| {
            if let Event::JobSubmitted(job) = &mut event {
                job.id = JobId(next);
                next += 1;
            }
            (Duration::from_millis(millis), event)
        };
        steps.into_iter().map(number).collect()
    })
}

fn play(pool: &mut Pool, now: &mut Duration, history: &[(Duration, Event)]) -> Vec<Action> {
    let mut actions = Actions::new();
    for (passes, event) in history {
        *now += *passes;
        pool.handle(Instant::new(*now), event.clone(), &mut actions);
    }
    actions
}

proptest! {
    #[test]
    fn the_same_events_and_seed_give_the_same_actions(history in arb_history(150), seed: u64) {
        let [first, second] = [0, 1].map(|_| {
            let mut now = Duration::ZERO;
play(&mut Pool::new(settings(), seed), &mut now, &history)
        });
        prop_assert_eq!(first, second);
    }

    #[test]
    fn a_restored_pool_goes_on_as_the_one_that_was_taken_down(
        history in arb_history(150),
        cut in 0usize..150,
        seed: u64,
    ) {
        let (before, after) = history.split_at(cut.min(history.len()));
        let mut pool = Pool::new(settings(), seed);
        let mut now = Duration::ZERO;
        play(&mut pool, &mut now, before);
        let json = serde_json::to_string(&pool.snapshot()).unwrap();
        let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
        let mut restored = Pool::restore(snapshot).unwrap();
        prop_assert_eq!(&restored, &pool);
        prop_assert_eq!(restored.deadline(), pool.deadline());
        let mut restored_now = now;
        prop_assert_eq!(
            play(&mut restored, &mut restored_now, after),
            play(&mut pool, &mut now, after)
        );
        prop_assert_eq!(restored.snapshot(), pool.snapshot());
    }

    #[test]
    fn the_deadline_is_always_ahead_and_time_alone_comes_to_rest(history in arb_history(100)) {
        let mut pool = Pool::new(settings(), 1);
        let mut now = Duration::ZERO;
        play(&mut pool, &mut now, &history);
        for _ in 0..1_000 {
            let Some(deadline) = pool.deadline() else { return Ok(()) };
            prop_assert!(deadline > Instant::new(now));
            now = deadline.since_start();
            pool.handle(deadline, Event::TimeReached, &mut Actions::new());
        }
        prop_assert!(false, "nobody answers any more, and the pool still waits for something");
    }
}

#[test]
fn a_snapshot_of_another_version_or_with_a_broken_invariant_is_refused() {
    let mut pool = Pool::new(settings(), 1);
    let mut actions = Actions::new();
    pool.handle(Instant::START, Event::JobSubmitted(job(1)), &mut actions);
    let json = serde_json::to_value(pool.snapshot()).unwrap();

    let mut newer = json.clone();
    newer["version"] = (Snapshot::VERSION + 1).into();
    let restored = Pool::restore(serde_json::from_value(newer).unwrap());
    let found = Snapshot::VERSION + 1;
    assert_eq!(restored, Err(RestoreError::Version { found }));

    let mut broken = json.clone();
    broken["jobs"][0]["lost"] = 7.into();
    let restored = Pool::restore(serde_json::from_value(broken).unwrap());
    assert!(
        matches!(restored, Err(RestoreError::Unsound(ref broken)) if broken.invariant == "I3"),
        "{restored:?}"
    );

    let mut unknown = json.clone();
    unknown["standing"][1][1]["passes"][0][0] = 9.into();
    let restored = Pool::restore(serde_json::from_value(unknown).unwrap());
    assert_eq!(restored, Err(RestoreError::Torn { what: "tenants" }));

    let mut torn = json;
    torn["slots"][0]["worker"]["slot"] = 1.into();
    let restored = Pool::restore(serde_json::from_value(torn).unwrap());
    assert_eq!(restored, Err(RestoreError::Torn { what: "slots" }));
}
