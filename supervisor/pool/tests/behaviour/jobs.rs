//! Jobs: accepted, delayed, expired, cancelled, requeued, quarantined.

use std::time::Duration;

use wpool_pool::action::{Action, Conclusion, KillReason, Lost, Record, RecordId, Refusal};
use wpool_pool::event::{Event, JobEnd, NewJob, RetryRule};
use wpool_pool::settings::Settings;
use wpool_pool::time::Instant;
use wpool_pool::view::JobPlace;
use wpool_protocol::id::JobId;

use super::story::{Story, attempt, conclusions, job, worker};

#[test]
fn a_job_may_run_before_its_acceptance_is_durable_and_nothing_shows() {
    let mut story = Story::with_workers(1);
    let run = attempt(7, 1);
    let actions = story.on_unrecorded(Event::JobSubmitted(job(7)));
    let accepted = Action::Record(RecordId(1), Record::Accepted(JobId(7)));
    let expected = [
        accepted,
        Action::Assign(worker(0, 1), run),
        Action::Ping(worker(0, 1), 1),
    ];
    assert_eq!(actions, expected);
    let view = story.pool.job(JobId(7)).unwrap();
    assert_eq!(view.place, JobPlace::Accepting);

    let actions = story.on_unrecorded(Event::JobEnded(worker(0, 1), run, JobEnd::Failed));
    let reported = Conclusion::Reported {
        attempt: run,
        worker: worker(0, 1),
    };
    let concluded = Record::Concluded(JobId(7), reported);
    assert_eq!(actions, [Action::Record(RecordId(2), concluded)]);
    let accepted = story.on_unrecorded(Event::RecordSynced(RecordId(1)));
    assert_eq!(accepted, [Action::Accept(JobId(7))]);
    assert_eq!(
        story.on_unrecorded(Event::RecordSynced(RecordId(2))),
        [Action::Conclude(JobId(7), reported)]
    );
    assert_eq!(story.pool.job(JobId(7)), None);
}

#[test]
fn a_full_queue_refuses_by_the_limit_that_is_reached() {
    let mut story = Story::new(Settings {
        queue_jobs: 2,
        queue_bytes: 25,
        ..Settings::default_for(1)
    });
    let refused = |actions: &[Action]| match actions.last() {
        Some(Action::Refuse(_, refusal)) => Some(*refusal),
        _ => None,
    };
    assert_eq!(refused(&story.submit(job(1))), None);
    let large = NewJob {
        bytes: 16,
        ..job(2)
    };
    let refusal = refused(&story.submit(large));
    assert!(
        matches!(refusal, Some(Refusal::BytesFull { limit: 25, .. })),
        "{refusal:?}"
    );
    assert_eq!(refused(&story.submit(job(3))), None);
    let refusal = refused(&story.submit(job(4)));
    assert!(
        matches!(refusal, Some(Refusal::JobsFull { limit: 2, .. })),
        "{refusal:?}"
    );
}

#[test]
fn a_delayed_job_starts_when_its_time_comes_and_an_idle_pool_sleeps_until_then() {
    let mut story = Story::with_workers(1);
    assert_eq!(story.pool.deadline(), None);
    let delay = Duration::from_secs(9);
    story.submit(NewJob { delay, ..job(1) });
    assert_eq!(story.pool.view().queued.delayed, 1);
    let actions = story.on_deadline();
    assert_eq!(story.now, Duration::from_secs(10));
    assert_eq!(
        actions.first(),
        Some(&Action::Assign(worker(0, 1), attempt(1, 1)))
    );
}

#[test]
fn a_start_at_the_last_moment_is_in_time_and_one_after_it_is_not() {
    let mut story = Story::with_workers(1);
    let wait = Duration::from_secs(2);
    let in_time = NewJob {
        delay: wait,
        start_within: Some(wait),
        ..job(1)
    };
    story.submit(in_time);
    let actions = story.on_deadline();
    assert_eq!(conclusions(&actions), []);

    let late = NewJob {
        start_within: Some(wait),
        ..job(2)
    };
    story.submit(late);
    assert_eq!(
        conclusions(&story.on_deadline()),
        [(2, Conclusion::Expired)]
    );
    assert_eq!(story.now, Duration::from_secs(5) + Duration::from_nanos(1));
}

#[test]
fn a_job_that_has_started_once_does_not_expire_any_more() {
    let mut story = Story::with_workers(1);
    let within = NewJob {
        start_within: Some(Duration::from_millis(1)),
        ..job(1)
    };
    story.run(within, worker(0, 1));
    story.on(Event::WorkerExited(worker(0, 1)));
    assert_eq!(conclusions(&story.on_deadline()), []);
    let actions = story.on(Event::WorkerReady(worker(0, 2)));
    assert_eq!(
        actions.first(),
        Some(&Action::Assign(worker(0, 2), attempt(1, 2)))
    );
}

#[test]
fn a_waiting_job_is_cancelled_at_once_and_a_running_one_by_its_worker() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    story.submit(job(2));
    let cancelled = story.on(Event::CancelRequested(JobId(2)));
    assert_eq!(conclusions(&cancelled), [(2, Conclusion::Cancelled)]);

    let stop = [Action::Stop(worker(0, 1), run)];
    assert_eq!(story.on(Event::CancelRequested(JobId(1))), stop);
    assert_eq!(story.on(Event::CancelRequested(JobId(1))), []);
    let ended = story.end(worker(0, 1), run, JobEnd::Stopped);
    let reported = Conclusion::Reported {
        attempt: run,
        worker: worker(0, 1),
    };
    assert_eq!(conclusions(&ended), [(1, reported)]);
}

#[test]
fn a_cancelled_job_whose_worker_is_lost_ends_as_cancelled() {
    let mut story = Story::with_workers(1);
    story.run(job(1), worker(0, 1));
    story.on(Event::CancelRequested(JobId(1)));
    let actions = story.on(Event::WorkerExited(worker(0, 1)));
    assert_eq!(conclusions(&actions), [(1, Conclusion::Cancelled)]);
}

#[test]
fn a_worker_that_does_not_stop_its_job_is_killed_for_it() {
    let mut story = Story::with_workers(1);
    story.run(job(1), worker(0, 1));
    story.on(Event::CancelRequested(JobId(1)));
    let kill = [Action::Kill(worker(0, 1), KillReason::StopIgnored)];
    assert_eq!(story.on_deadline(), kill);
    let actions = story.on(Event::WorkerExited(worker(0, 1)));
    assert_eq!(conclusions(&actions), [(1, Conclusion::Cancelled)]);
}

#[test]
fn each_lost_worker_costs_an_attempt_and_the_last_one_quarantines() {
    let mut story = Story::with_workers(1);
    story.run(job(1), worker(0, 1));
    for generation in 1..=2 {
        let present = worker(0, generation);
        let actions = story.on(Event::WorkerExited(present));
        let Some(&Action::Requeue {
            attempt: lost_attempt,
            lost,
            not_before,
            ..
        }) = actions.first()
        else {
            panic!("{actions:?}");
        };
        assert_eq!(lost_attempt, attempt(1, generation));
        assert_eq!(lost, Lost::Exited);
        let wait = not_before.since(Instant::new(story.now));
        let whole = Duration::from_millis(50) * generation;
        assert!(whole / 2 <= wait && wait <= whole, "{wait:?}");
        let next = worker(0, generation + 1);
        assert_eq!(actions.get(1), Some(&Action::Spawn(next)));
        story.on(Event::WorkerReady(next));
        let run = attempt(1, generation + 1);
        assert_eq!(
            story.on_deadline().first(),
            Some(&Action::Assign(next, run))
        );
    }
    let actions = story.on(Event::WorkerExited(worker(0, 3)));
    let quarantined = Conclusion::Quarantined { lost: 3 };
    assert_eq!(conclusions(&actions), [(1, quarantined)]);
}

#[test]
fn a_job_that_may_not_be_repeated_is_quarantined_at_once() {
    let mut story = Story::with_workers(1);
    let once = NewJob {
        retry_on: RetryRule::NEVER,
        ..job(1)
    };
    story.run(once, worker(0, 1));
    let actions = story.on(Event::WorkerExited(worker(0, 1)));
    let quarantined = Conclusion::Quarantined { lost: 1 };
    assert_eq!(conclusions(&actions), [(1, quarantined)]);
}

#[test]
fn a_job_that_overruns_is_not_repeated() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    let kill = [Action::Kill(worker(0, 1), KillReason::Overrun)];
    assert_eq!(story.on_deadline(), kill);
    assert_eq!(story.now, Duration::from_secs(1 + 30 + 5));
    // Too late: it has been killed, and what it says does not count any more.
    assert_eq!(story.end(worker(0, 1), run, JobEnd::TimedOut), []);
    let actions = story.on(Event::WorkerExited(worker(0, 1)));
    let overran = Conclusion::Overran {
        attempt: run,
        worker: worker(0, 1),
    };
    assert_eq!(conclusions(&actions), [(1, overran)]);
}

#[test]
fn an_unbuilt_box_is_a_fault_of_the_worker() {
    let mut story = Story::with_workers(1);
    story.submit(job(1));
    let kill = [Action::Kill(worker(0, 1), KillReason::BoxFailed)];
    assert_eq!(
        story.end(worker(0, 1), attempt(1, 1), JobEnd::BoxFailed),
        kill
    );
    let actions = story.on(Event::WorkerExited(worker(0, 1)));
    assert!(
        matches!(
            actions.first(),
            Some(Action::Requeue {
                lost: Lost::Killed(KillReason::BoxFailed),
                ..
            })
        ),
        "{actions:?}"
    );
}
