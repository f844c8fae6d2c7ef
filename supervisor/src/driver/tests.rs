//! The driver against workers that a test plays over real pipes, with real processes to be killed.

use std::time::Duration;

use base64::Engine as _;
use wpool_pool::settings::Settings;
use wpool_protocol::id::JobId;
use wpool_protocol::job::JobRequest;
use wpool_protocol::outcome::{AttemptEnd, CauseDetail, JobState, Outcome};
use wpool_protocol::quantity::Millis;
use wpool_protocol::status::{PoolState, SlotState};
use wpool_protocol::wire::{FromWorker, OutputBytes, OutputHeader, Stream, ToWorker};

use super::command::{
    Acceptance, Deleted, Interest, NotAccepted, PoolOrder, Reader, Reading, Watched,
};
use super::job::Progress;
use super::register::Filter;
use super::*;
use crate::request::{Caller, Role, resolve};

mod hostile;
pub(crate) mod player;

use player::{Cast, Player};

/// A guard against hanging; no claim of speed.
const PATIENCE: Duration = Duration::from_secs(30);

fn admin() -> Caller {
    Caller {
        tenant: "uid:0".into(),
        role: Role::Admin,
    }
}

fn submitter(tenant: &str) -> Caller {
    Caller {
        tenant: tenant.into(),
        role: Role::Submitter,
    }
}

fn config(slots: u16) -> Config {
    let mut config = Config::default_for(slots);
    config.pool = Settings {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        ..config.pool
    };
    config
}

fn job(command: &[&str]) -> JobRequest {
    JobRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..JobRequest::default()
    }
}

/// Runs `test` with a driver whose workers play `player`.
fn with<F: Future>(config: Config, player: Player, test: impl FnOnce(Handle) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cast = Cast::new(player);
        let (mut driver, handle) = Driver::new(config, Box::new(cast), Notifier::silent());
        let test = test(handle);
        tokio::select! {
            result = async { tokio::time::timeout(PATIENCE, test).await.expect("the test ends in time") } => result,
            end = driver.run() => panic!("the driver ended first: {end:?}"),
        }
    })
}

async fn submit_as(handle: &Handle, caller: &Caller, request: JobRequest) -> JobId {
    let resolved = resolve(request, caller, &handle.config()).unwrap();
    match handle.submit(resolved).await {
        Ok(Acceptance::New(submitted)) => submitted.id,
        other => panic!("not accepted: {other:?}"),
    }
}

async fn submit(handle: &Handle, request: JobRequest) -> JobId {
    submit_as(handle, &admin(), request).await
}

async fn outcome(handle: &Handle, id: JobId) -> Arc<Outcome> {
    match handle
        .watch(id, &admin())
        .await
        .unwrap()
        .expect("it is there")
    {
        Watched::Ended(outcome) => outcome,
        Watched::Live(mut progress) => {
            let ended = progress.wait_for(|progress| matches!(progress, Progress::Ended(_)));
            match &*ended.await.unwrap() {
                Progress::Ended(outcome) => Arc::clone(outcome),
                Progress::Live(..) => unreachable!(),
            }
        }
    }
}

async fn running(handle: &Handle, id: JobId) {
    if let Watched::Live(mut progress) = handle.watch(id, &admin()).await.unwrap().unwrap() {
        let is_running = |progress: &Progress| matches!(progress, Progress::Live(JobState::Running, number) if *number > 0);
        // The number: the state was Running before somebody looked, or has become so since.
        let state = progress.borrow().clone();
        if !matches!(state, Progress::Live(JobState::Running, _)) {
            progress.wait_for(is_running).await.unwrap();
        }
    }
}

#[test]
fn a_job_runs_and_its_outcome_holds_what_it_wrote() {
    with(config(1), Player::honest(), |handle| async move {
        let id = submit(&handle, job(&["write", "hello", "oops"])).await;
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::Succeeded);
        assert_eq!(outcome.stdout.0, b"hello");
        assert_eq!(outcome.stderr.0, b"oops");
        assert_eq!(outcome.stdout_bytes, 5);
        assert_eq!(outcome.attempts.len(), 1);
        assert_eq!(outcome.attempts[0].end, AttemptEnd::Exited);
        assert_eq!(outcome.isolation.layers, ["pid"]);
        let status = handle.status(&admin()).await.unwrap();
        assert_eq!((status.completed, status.active), (1, 0));
        assert_eq!(status.ended[&JobState::Succeeded], 1);
        assert_eq!(status.state, PoolState::Running);
        assert!(status.last_job_at.is_some());
    });
}

#[test]
fn inputs_arrive_whole_and_outputs_come_back_whole() {
    with(config(1), Player::honest(), |handle| async move {
        let mut request = job(&["echo-files"]);
        let big: Vec<u8> = (0..900_000u32).flat_map(u32::to_le_bytes).collect();
        let file = |bytes: &[u8]| wpool_protocol::job::InputFile {
            content: wpool_protocol::job::InputContent::Bytes(bytes.to_vec()),
            mode: 0o644,
        };
        request.files = [
            ("a.txt".parse().unwrap(), file(b"text")),
            ("big".parse().unwrap(), file(&big)),
            ("empty".parse().unwrap(), file(b"")),
        ]
        .into();
        let id = submit(&handle, request).await;
        let outcome = outcome(&handle, id).await;
        let text = |text: &str| wpool_protocol::outcome::OutputFile::Text(text.to_owned());
        assert_eq!(outcome.files["a.txt"], text("text"));
        assert_eq!(outcome.files["empty"], text(""));
        let wpool_protocol::outcome::OutputFile::Base64(coded) = &outcome.files["big"] else {
            panic!("{:?}", outcome.files.keys());
        };
        let decoded = base64::prelude::BASE64_STANDARD.decode(coded).unwrap();
        assert!(decoded == big);
    });
}

#[test]
fn a_job_whose_worker_dies_is_run_again_and_the_loss_is_told() {
    let player = Player::new(|stage| {
        if stage.attempt() == 1 {
            stage.start();
            stage.write(Stream::Stdout, b"half a word");
            stage.die();
        } else {
            stage.start();
            stage.write(Stream::Stdout, b"whole");
            stage.exit(0);
        }
    });
    with(config(1), player, |handle| async move {
        let id = submit(&handle, job(&["x"])).await;
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::Succeeded);
        assert_eq!(outcome.stdout.0, b"whole");
        let [lost, second] = outcome.attempts.as_slice() else {
            panic!("{:?}", outcome.attempts)
        };
        assert_eq!(lost.end, AttemptEnd::WorkerLost);
        assert_eq!(lost.stdout_tail.as_ref().unwrap().0, b"half a word");
        assert_eq!(lost.detail.as_deref(), Some("SIGKILL killed it"));
        assert_eq!(second.end, AttemptEnd::Exited);
        assert_eq!(second.generation.0, 2);
        let status = handle.status(&admin()).await.unwrap();
        assert_eq!(status.workers[0].crashes, 1);
        assert_eq!(status.workers[0].generation.0, 2);
    });
}

#[test]
fn a_job_that_kills_every_worker_is_quarantined_with_the_facts() {
    let player = Player::new(|stage| {
        stage.start();
        stage.die();
    });
    with(config(2), player, |handle| async move {
        let id = submit(&handle, job(&["x"])).await;
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::Quarantined);
        assert_eq!(outcome.attempts.len(), 3);
        let cause = outcome.cause.as_ref().unwrap();
        assert_eq!(cause.detail, CauseDetail::WorkerLost { attempts: 3 });
    });
}

#[test]
fn a_cancelled_job_ends_whether_it_waits_or_runs_and_is_forgotten_when_deleted_again() {
    with(config(1), Player::honest(), |handle| async move {
        let runs = submit(&handle, job(&["until-stopped"])).await;
        let waits = submit(&handle, job(&["write", "", ""])).await;
        running(&handle, runs).await;
        let answer = handle.delete(waits, &admin()).await.unwrap();
        assert_eq!(answer, Some(Deleted::Asked(JobState::Cancelled)));
        assert_eq!(
            outcome(&handle, waits).await.cause.as_ref().unwrap().detail,
            CauseDetail::Cancelled
        );
        let answer = handle.delete(runs, &admin()).await.unwrap();
        assert_eq!(answer, Some(Deleted::Asked(JobState::Running)));
        let ended = outcome(&handle, runs).await;
        assert_eq!(ended.state, JobState::Cancelled);
        assert_eq!(ended.attempts[0].end, AttemptEnd::Cancelled);
        assert_eq!(
            handle.delete(runs, &admin()).await.unwrap(),
            Some(Deleted::Forgotten)
        );
        assert!(handle.watch(runs, &admin()).await.unwrap().is_none());
    });
}

#[test]
fn of_another_tenants_job_nothing_is_seen() {
    with(config(1), Player::honest(), |handle| async move {
        let mine = submitter("uid:1000");
        let id = submit_as(&handle, &mine, job(&["until-stopped"])).await;
        running(&handle, id).await;
        let other = submitter("uid:1001");
        assert!(handle.watch(id, &other).await.unwrap().is_none());
        assert_eq!(handle.delete(id, &other).await.unwrap(), None);
        let status = handle.status(&other).await.unwrap();
        assert_eq!(status.workers[0].state, SlotState::Busy);
        assert_eq!(status.workers[0].job, None);
        let status = handle.status(&mine).await.unwrap();
        assert_eq!(status.workers[0].job, Some(id));
        handle.delete(id, &mine).await.unwrap();
        outcome(&handle, id).await;
        assert!(handle.watch(id, &other).await.unwrap().is_none());
        assert_eq!(handle.delete(id, &other).await.unwrap(), None);
    });
}

#[test]
fn listings_come_in_pages_youngest_first_and_by_tenant_and_state() {
    with(config(1), Player::honest(), |handle| async move {
        handle.order(PoolOrder::Pause).await.unwrap();
        let mut ids = Vec::new();
        for n in 0..25 {
            let tenant = submitter(if n % 5 == 0 { "uid:5" } else { "uid:1" });
            ids.push(submit_as(&handle, &tenant, job(&["write", "", ""])).await);
        }
        handle.delete(ids[3], &admin()).await.unwrap();
        let list = |tenant: Option<&str>, state, before, limit| {
            handle.list(Filter {
                tenant: tenant.map(Into::into),
                state,
                before,
                limit,
            })
        };
        let all = JobId(u64::MAX);
        let page = list(None, None, all, 10).await.unwrap();
        let shown: Vec<_> = page.jobs.iter().map(|job| job.id).collect();
        let expected: Vec<_> = ids.iter().rev().copied().collect();
        assert_eq!(shown, expected[..10]);
        let page = list(None, None, page.next.unwrap(), 100).await.unwrap();
        let shown: Vec<_> = page.jobs.iter().map(|job| job.id).collect();
        assert_eq!(shown, expected[10..]);
        assert_eq!(page.next, None);
        let page = list(Some("uid:5"), None, all, 100).await.unwrap();
        assert_eq!(page.jobs.len(), 5);
        let page = list(None, Some(JobState::Cancelled), all, 100)
            .await
            .unwrap();
        let [cancelled] = page.jobs.as_slice() else {
            panic!()
        };
        assert_eq!(cancelled.id, ids[3]);
        assert!(cancelled.cause.is_some());
    });
}

#[test]
fn a_full_queue_refuses_by_its_limit_and_a_key_is_accepted_once() {
    let mut config = config(1);
    config.pool.queue_jobs = 1;
    with(config, Player::honest(), |handle| async move {
        let resolved = |command: &str| {
            let mut request = job(&[command]);
            request.idempotency_key = Some("k".into());
            resolve(request, &admin(), &handle.config()).unwrap()
        };
        let first = handle.submit(resolved("until-stopped")).await.unwrap();
        let Acceptance::New(first) = first else {
            panic!()
        };
        let again = handle.submit(resolved("until-stopped")).await.unwrap();
        assert!(matches!(again, Acceptance::Known(known) if known.id == first.id));
        let other = handle.submit(resolved("other")).await;
        assert!(
            matches!(other, Err(NotAccepted::KeyTaken(taken)) if taken.id == first.id && taken.key == "k")
        );
        let plain = resolve(job(&["x"]), &admin(), &handle.config()).unwrap();
        let full = handle.submit(plain).await;
        assert!(
            matches!(
                full,
                Err(NotAccepted::Refused(
                    wpool_pool::action::Refusal::JobsFull { limit: 1, .. }
                ))
            ),
            "{full:?}"
        );
        handle.delete(first.id, &admin()).await.unwrap();
        outcome(&handle, first.id).await;
        handle.delete(first.id, &admin()).await.unwrap();
        let anew = handle.submit(resolved("write")).await.unwrap();
        assert!(matches!(anew, Acceptance::New(_)), "its key went with it");
    });
}

#[test]
fn a_follower_gets_every_byte_as_it_is_written() {
    let player = Player::new(|stage| {
        stage.start();
        for n in 0..5u8 {
            stage.write(Stream::Stdout, &[b'a' + n]);
            stage.until_followed();
        }
        stage.exit(0);
    });
    with(config(1), player, |handle| async move {
        let id = submit(&handle, job(&["x"])).await;
        let mut seen = Vec::new();
        let mut reader = Reader {
            id,
            caller: admin(),
            attempt: None,
            from: vec![(Stream::Stdout, 0)],
            interest: Interest::Future,
        };
        let ended = loop {
            match handle.read(reader.clone()).await.unwrap().unwrap() {
                Reading::Ended(outcome) => break outcome,
                Reading::Live {
                    attempt,
                    chunks,
                    mut progress,
                } => {
                    reader.attempt = attempt;
                    for chunk in &chunks {
                        assert_eq!(chunk.offset, reader.from[0].1);
                        seen.extend_from_slice(&chunk.bytes);
                        reader.from[0].1 += u64::try_from(chunk.bytes.len()).unwrap();
                    }
                    if chunks.is_empty() {
                        // What happened before we looked is in the number that the receiver has seen.
                        drop(progress.changed().await);
                    }
                }
            }
        };
        seen.extend_from_slice(&ended.stdout.0[seen.len()..]);
        assert_eq!(seen, b"abcde");
    });
}

#[test]
fn large_outputs_are_taken_in_elsewhere_even_if_the_worker_dies_meanwhile() {
    let player = Player::new(|stage| {
        stage.start();
        stage.write(Stream::Stdout, &vec![b'x'; 900_000]);
        stage.end(wpool_protocol::wire::Ending::Exited(0));
        stage.die();
    });
    with(config(1), player, |handle| async move {
        let id = submit(&handle, job(&["x"])).await;
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::Succeeded);
        assert_eq!(outcome.stdout.0.len(), 900_000);
    });
}

#[test]
fn a_shutdown_lets_end_what_runs_and_cancels_what_waits() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = config(1);
        config.grace = Duration::from_millis(100);
        let (mut driver, handle) = Driver::new(
            config,
            Box::new(Cast::new(Player::honest())),
            Notifier::silent(),
        );
        let test = async {
            let runs = submit(&handle, job(&["until-stopped"])).await;
            running(&handle, runs).await;
            let waits = submit(&handle, job(&["x"])).await;
            let watch = |id| {
                let handle = handle.clone();
                async move { outcome(&handle, id).await }
            };
            let shutdown = async {
                handle.shut_down().await.unwrap();
            };
            tokio::join!(watch(runs), watch(waits), shutdown)
        };
        let (end, (runs, waits, ())) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(driver.run(), test) })
                .await
                .unwrap();
        assert_eq!(end, Ok(DriverEnd::Stopped));
        for outcome in [&runs, &waits] {
            assert_eq!(outcome.state, JobState::Cancelled);
            let cause = outcome.cause.as_ref().unwrap();
            assert_eq!(cause.detail, CauseDetail::Shutdown);
        }
        assert_eq!(runs.attempts[0].end, AttemptEnd::Shutdown);
        assert!(waits.attempts.is_empty());
    });
}
