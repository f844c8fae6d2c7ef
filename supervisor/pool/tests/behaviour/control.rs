//! The operator: pause, drain, resume, shutdown, new settings.

use std::time::Duration;

use wpool_pool::action::{Action, Conclusion, KillReason, Refusal};
use wpool_pool::event::{DrainScope, Event, JobEnd, NewJob};
use wpool_pool::settings::Settings;
use wpool_protocol::id::JobId;
use wpool_protocol::status::{PoolState, QueuePressure};

use super::story::{Story, attempt, conclusions, job, worker};

#[test]
fn a_paused_pool_accepts_and_starts_nothing_until_it_is_resumed() {
    let mut story = Story::with_workers(1);
    story.on(Event::PauseRequested);
    assert_eq!(story.submit(job(1)), [Action::Accept(JobId(1))]);
    assert_eq!(story.pool.view().state, PoolState::Paused);
    let assign = Action::Assign(worker(0, 1), attempt(1, 1));
    assert_eq!(story.on(Event::ResumeRequested).first(), Some(&assign));
}

#[test]
fn a_draining_pool_refuses_finishes_what_runs_and_leaves_the_queue() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    story.submit(job(2));
    story.on(Event::DrainRequested(DrainScope::Running));
    let refused = [Action::Refuse(JobId(3), Refusal::Draining)];
    assert_eq!(story.submit(job(3)), refused);
    let actions = story.end(worker(0, 1), run, JobEnd::Succeeded);
    assert_eq!(actions.len(), 1, "{actions:?}");
    assert_eq!(story.pool.view().queued.total, 1);
    assert_eq!(story.pool.view().state, PoolState::Draining);
}

#[test]
fn a_drain_of_the_queue_too_runs_what_waits() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    story.submit(job(2));
    story.on(Event::DrainRequested(DrainScope::Queued));
    let actions = story.end(worker(0, 1), run, JobEnd::Succeeded);
    let assign = Action::Assign(worker(0, 1), attempt(2, 1));
    assert!(actions.contains(&assign), "{actions:?}");
}

#[test]
fn a_shutdown_ends_what_waits_and_lets_what_runs_end_within_the_grace() {
    let mut story = Story::with_workers(3);
    let runs = [
        story.run(job(1), worker(0, 1)),
        story.run(job(2), worker(1, 1)),
    ];
    story.on(Event::PauseRequested);
    story.submit(job(3));
    let grace = Duration::from_secs(2);
    let actions = story.on(Event::ShutdownRequested { grace });
    assert_eq!(conclusions(&actions), [(3, Conclusion::Shutdown)]);
    assert!(actions.contains(&Action::Retire(worker(2, 1))));
    let refused = [Action::Refuse(JobId(4), Refusal::Stopping)];
    assert_eq!(story.submit(job(4)), refused);

    let actions = story.end(worker(0, 1), runs[0], JobEnd::Succeeded);
    assert!(actions.contains(&Action::Retire(worker(0, 1))));
    for slot in [0, 2] {
        assert_eq!(story.on(Event::WorkerExited(worker(slot, 1))), []);
    }
    let kill = [Action::Kill(worker(1, 1), KillReason::Shutdown)];
    assert_eq!(story.on_deadline(), kill);
    assert_eq!(story.now, Duration::from_secs(3));
    let actions = story.on(Event::WorkerExited(worker(1, 1)));
    assert_eq!(conclusions(&actions), [(2, Conclusion::Shutdown)]);
    assert_eq!(actions.last(), Some(&Action::Stopped));
    assert_eq!(story.pool.deadline(), None);
}

#[test]
fn a_second_shutdown_without_grace_ends_everything_at_once() {
    let mut story = Story::with_workers(2);
    story.run(job(1), worker(0, 1));
    let grace = Duration::from_mins(1);
    story.on(Event::ShutdownRequested { grace });
    let grace = Duration::ZERO;
    let killed = [0, 1].map(|slot| Action::Kill(worker(slot, 1), KillReason::Shutdown));
    assert_eq!(story.on(Event::ShutdownRequested { grace }), killed);
}

#[test]
fn an_attempt_that_a_shutdown_cuts_short_is_not_counted() {
    let mut story = Story::with_workers(1);
    let only_once = NewJob {
        attempts_max: 1,
        ..job(1)
    };
    story.run(only_once, worker(0, 1));
    let grace = Duration::ZERO;
    story.on(Event::ShutdownRequested { grace });
    let actions = story.on(Event::WorkerExited(worker(0, 1)));
    assert_eq!(conclusions(&actions), [(1, Conclusion::Shutdown)]);
}

#[test]
fn a_shutdown_ends_a_job_that_waits_for_its_time_too() {
    let mut story = Story::with_workers(1);
    let delay = Duration::from_hours(1);
    story.submit(NewJob { delay, ..job(1) });
    let grace = Duration::from_secs(1);
    let actions = story.on(Event::ShutdownRequested { grace });
    assert_eq!(conclusions(&actions), [(1, Conclusion::Shutdown)]);
}

#[test]
fn a_worker_that_could_not_be_born_does_not_hold_up_a_shutdown() {
    let mut story = Story::new(Settings::default_for(1));
    story.on(Event::TimeReached);
    let grace = Duration::from_secs(1);
    let killed = [Action::Kill(worker(0, 1), KillReason::Shutdown)];
    assert_eq!(story.on(Event::ShutdownRequested { grace }), killed);
    let stopped = [Action::Stopped];
    assert_eq!(story.on(Event::SpawnFailed(worker(0, 1))), stopped);
}

#[test]
fn pressure_rises_with_what_waits() {
    let mut story = Story::new(Settings {
        queue_jobs: 4,
        ..Settings::default_for(1)
    });
    let pressures = [1, 2, 3, 4].map(|id| {
        story.submit(job(id));
        story.pool.view().pressure
    });
    let expected = [
        QueuePressure::Ok,
        QueuePressure::Ok,
        QueuePressure::Filling,
        QueuePressure::Full,
    ];
    assert_eq!(pressures, expected);
}

#[test]
fn new_settings_hold_from_now_on_and_do_not_change_the_slots() {
    let mut story = Story::with_workers(1);
    let settings = Settings {
        queue_jobs: 0,
        ..Settings::default_for(8)
    };
    story.on(Event::SettingsChanged(Box::new(settings)));
    assert_eq!(story.pool.slots().len(), 1);
    let actions = story.submit(job(1));
    assert!(
        matches!(actions[..], [Action::Refuse(_, Refusal::JobsFull { .. })]),
        "{actions:?}"
    );
}
