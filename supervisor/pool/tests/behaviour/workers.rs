//! Workers: chosen, asked, killed, replaced, parked.

use std::time::Duration;

use wpool_pool::action::{Action, KillReason};
use wpool_pool::event::{Event, JobEnd};
use wpool_pool::settings::Settings;
use wpool_protocol::status::{PoolState, SlotState};

use super::story::{Story, attempt, job, worker};

#[test]
fn the_first_event_makes_every_slot_spawn_its_worker() {
    let mut story = Story::new(Settings::default_for(2));
    let spawned = [Action::Spawn(worker(0, 1)), Action::Spawn(worker(1, 1))];
    assert_eq!(story.on(Event::TimeReached), spawned);
    assert_eq!(story.on(Event::TimeReached), []);
}

#[test]
fn the_idle_worker_that_has_worked_least_gets_the_next_job() {
    let mut story = Story::with_workers(2);
    let first = story.run(job(1), worker(0, 1));
    story.now += Duration::from_secs(1);
    story.end(worker(0, 1), first, JobEnd::Succeeded);
    let actions = story.submit(job(2));
    assert!(
        actions.contains(&Action::Assign(worker(1, 1), attempt(2, 1))),
        "{actions:?}"
    );
}

#[test]
fn a_busy_worker_is_asked_at_intervals_and_killed_when_it_does_not_answer() {
    let mut story = Story::with_workers(1);
    story.run(job(1), worker(0, 1));
    story.now += Duration::from_secs(1);
    let ping = [Action::Ping(worker(0, 1), 2)];
    assert_eq!(story.on(Event::TimeReached), ping);
    story.now += Duration::from_secs(5);
    let kill = [Action::Kill(worker(0, 1), KillReason::Silent)];
    assert_eq!(story.on(Event::TimeReached), kill);
}

#[test]
fn a_worker_that_answers_and_never_starts_its_job_is_silent_too() {
    let mut story = Story::with_workers(1);
    story.submit(job(1));
    story.on(Event::PingAnswered(worker(0, 1), 1));
    let kill = [Action::Kill(worker(0, 1), KillReason::Silent)];
    assert_eq!(story.on_deadline(), kill);
    assert_eq!(story.now, Duration::from_secs(6));
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed() {
    let mut story = Story::new(Settings::default_for(1));
    story.on(Event::TimeReached);
    let kill = [Action::Kill(worker(0, 1), KillReason::NotReady)];
    assert_eq!(story.on_deadline(), kill);
    assert_eq!(story.now, Duration::from_secs(10));
    let spawn = [Action::Spawn(worker(0, 2))];
    assert_eq!(story.on(Event::WorkerExited(worker(0, 1))), spawn);
}

#[test]
fn a_worker_that_claims_to_have_been_stopped_is_killed() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    let kill = [Action::Kill(worker(0, 1), KillReason::Violation)];
    assert_eq!(story.end(worker(0, 1), run, JobEnd::Stopped), kill);
}

#[test]
fn what_a_past_generation_says_is_dropped_and_counted() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    story.on(Event::WorkerExited(worker(0, 1)));
    story.on(Event::WorkerReady(worker(0, 2)));
    for event in [
        Event::WorkerExited(worker(0, 1)),
        Event::JobEnded(worker(0, 1), run, JobEnd::Succeeded),
        Event::WorkerViolated(worker(7, 1)),
    ] {
        assert_eq!(story.on(event), []);
    }
    assert_eq!(story.pool.dropped().other_generation, 3);
    story.on_deadline();
    assert_eq!(story.end(worker(0, 2), run, JobEnd::Succeeded), []);
    assert_eq!(story.pool.dropped().other_attempt, 1);
}

/// Lets the slot's workers die until it is parked; how many births that took.
fn burn(story: &mut Story, mut die: impl FnMut(&mut Story, u32)) -> u32 {
    let mut births = 0;
    loop {
        let slot = story.pool.slots()[0];
        if slot.state == SlotState::Parked {
            return births;
        }
        births += 1;
        die(story, slot.worker.generation.0);
    }
}

#[test]
fn a_slot_whose_workers_die_before_ready_is_parked_and_probed_by_one() {
    let mut story = Story::new(Settings::default_for(1));
    story.on(Event::TimeReached);
    let births = burn(&mut story, |story, generation| {
        story.on(Event::SpawnFailed(worker(0, generation)));
    });
    assert_eq!(births, 5);
    assert_eq!(story.pool.view().state, PoolState::Degraded);
    assert_eq!(story.pool.view().parked, 1);

    let probe = worker(0, 6);
    assert_eq!(story.on_deadline(), [Action::Spawn(probe)]);
    assert_eq!(story.pool.view().state, PoolState::Degraded);
    assert_eq!(story.on(Event::WorkerExited(probe)), []);
    assert_eq!(story.pool.view().parked, 1);

    assert_eq!(story.on_deadline(), [Action::Spawn(worker(0, 7))]);
    story.on(Event::WorkerReady(worker(0, 7)));
    assert_eq!(story.pool.view().state, PoolState::Running);
}

#[test]
fn workers_that_die_right_after_ready_are_parked_and_those_that_lived_for_a_while_are_not() {
    let mut story = Story::new(Settings::default_for(1));
    story.on(Event::TimeReached);
    let births = burn(&mut story, |story, generation| {
        story.on(Event::WorkerReady(worker(0, generation)));
        story.on(Event::WorkerExited(worker(0, generation)));
    });
    assert_eq!(births, 5);

    let mut story = Story::with_workers(1);
    for generation in 1..100 {
        story.now += Duration::from_millis(50);
        let spawn = [Action::Spawn(worker(0, generation + 1))];
        assert_eq!(story.on(Event::WorkerExited(worker(0, generation))), spawn);
        story.on(Event::WorkerReady(worker(0, generation + 1)));
    }
}

#[test]
fn a_slot_that_can_build_no_box_is_parked_before_it_burns_the_whole_queue() {
    let mut story = Story::with_workers(1);
    for id in 1..=100 {
        story.submit(job(id));
    }
    let births = burn(&mut story, |story, generation| {
        let present = worker(0, generation);
        story.on(Event::WorkerReady(present));
        let run = story.pool.slots()[0].attempt.unwrap();
        story.end(present, run, JobEnd::BoxFailed);
        story.on(Event::WorkerExited(present));
    });
    assert_eq!(births, 5);
}

#[test]
fn a_worker_is_recycled_when_it_is_idle_and_another_stands_in() {
    let mut story = Story::with_workers(1);
    let run = story.run(job(1), worker(0, 1));
    let spare = [Action::Spawn(worker(1, 1))];
    assert_eq!(story.on(Event::RecycleRequested), spare);
    assert_eq!(story.on(Event::WorkerReady(worker(1, 1))), [], "it is busy");
    let actions = story.end(worker(0, 1), run, JobEnd::Succeeded);
    assert!(
        actions.contains(&Action::Retire(worker(0, 1))),
        "{actions:?}"
    );
    let stands_in = story.run(job(2), worker(1, 1));
    let next = [Action::Spawn(worker(0, 2))];
    assert_eq!(story.on(Event::WorkerExited(worker(0, 1))), next);
    assert_eq!(story.on(Event::WorkerReady(worker(0, 2))), []);
    let actions = story.end(worker(1, 1), stands_in, JobEnd::Succeeded);
    assert!(
        actions.contains(&Action::Retire(worker(1, 1))),
        "{actions:?}"
    );
    assert_eq!(story.on(Event::WorkerExited(worker(1, 1))), []);
    assert_eq!(story.pool.slots().len(), 1);
    assert_eq!(story.pool.slots()[0].crashes, 0);
}

#[test]
fn a_worker_is_recycled_after_its_jobs_and_at_its_age() {
    let mut story = Story::new(Settings {
        recycle_jobs: Some(2),
        recycle_age: Some(Duration::from_mins(1)),
        ..Settings::default_for(1)
    });
    story.on(Event::TimeReached);
    story.on(Event::WorkerReady(worker(0, 1)));
    let first = story.run(job(1), worker(0, 1));
    let spare = Action::Spawn(worker(1, 1));
    let actions = story.end(worker(0, 1), first, JobEnd::Succeeded);
    assert!(!actions.contains(&spare), "{actions:?}");
    let second = story.run(job(2), worker(0, 1));
    let actions = story.end(worker(0, 1), second, JobEnd::Failed);
    assert!(actions.contains(&spare), "{actions:?}");
    for event in [
        Event::WorkerReady(worker(1, 1)),
        Event::WorkerExited(worker(0, 1)),
        Event::WorkerReady(worker(0, 2)),
        Event::WorkerExited(worker(1, 1)),
    ] {
        story.on(event);
    }
    // The new one does nothing, and an idle pool sleeps until it is old.
    let born = story.now;
    let actions = story.on_deadline();
    assert_eq!(actions, [Action::Spawn(worker(1, 2))]);
    assert_eq!(story.now, born + Duration::from_mins(1));
}
