//! Workers that lie, hang, do not listen or cannot work.

use super::*;

#[test]
fn a_worker_that_says_what_it_may_not_is_killed_and_its_job_run_elsewhere() {
    type Lie = fn(&mut player::Stage);
    let lies: [(&str, Lie); 9] = [
        ("garbage", |stage| {
            stage.send_raw(&[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }),
        ("a frame of 4 GiB", |stage| stage.send_raw(&[0xff; 4])),
        ("another attempt", |stage| {
            let mut attempt = stage.attempt_ref();
            attempt.job = attempt.job.next();
            stage.send(&FromWorker::Started(attempt));
        }),
        ("ready twice", |stage| stage.send(&player::ready())),
        ("an unasked pong", |stage| stage.send(&FromWorker::Pong(99))),
        ("an unasked word on output", |stage| {
            stage.start();
            let written = stage.written();
            stage.send(&FromWorker::Written(written));
        }),
        ("bytes of no file", |stage| {
            stage.start();
            let attempt = stage.attempt_ref();
            let size = Ok(1);
            stage.send(&FromWorker::Output(OutputHeader {
                attempt,
                name: b"a".to_vec(),
                size,
            }));
            stage.send(&FromWorker::OutputBytes(OutputBytes {
                attempt,
                bytes: vec![0; 2],
            }));
        }),
        ("a file of 65 MiB", |stage| {
            stage.start();
            let attempt = stage.attempt_ref();
            let size = Ok(65 << 20);
            stage.send(&FromWorker::Output(OutputHeader {
                attempt,
                name: b"a".to_vec(),
                size,
            }));
        }),
        ("stopped without an order", |stage| {
            stage.start();
            stage.end(wpool_protocol::wire::Ending::Stopped);
        }),
    ];
    for (name, lie) in lies {
        let player = Player::new(move |stage| {
            if stage.attempt() == 1 {
                lie(stage);
                stage.hear_out();
            } else {
                stage.start();
                stage.exit(0);
            }
        });
        let outcome = with(config(1), player, |handle| async move {
            let id = submit(&handle, job(&["x"])).await;
            outcome(&handle, id).await
        });
        assert_eq!(outcome.state, JobState::Succeeded, "{name}");
        assert_eq!(outcome.attempts.len(), 2, "{name}");
        let detail = outcome.attempts[0].detail.as_deref().unwrap_or_default();
        assert!(
            detail.starts_with("it said something that it may not say"),
            "{name}: {detail}"
        );
    }
}

#[test]
fn a_worker_that_hangs_is_killed_and_replaced() {
    let mut config = config(1);
    config.pool.silence_max = Duration::from_millis(100);
    let player = Player::new(|stage| {
        if stage.attempt() == 1 {
            stage.hang();
        } else {
            stage.start();
            stage.exit(0);
        }
    });
    with(config, player, |handle| async move {
        let id = submit(&handle, job(&["x"])).await;
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::Succeeded);
        let detail = outcome.attempts[0].detail.as_deref().unwrap();
        assert_eq!(detail, "it did not answer and was killed");
    });
}

#[test]
fn a_worker_that_does_not_read_holds_nobody_up() {
    let mut config = config(2);
    config.pool.silence_max = Duration::from_millis(200);
    let player = Player::new(|stage| {
        if stage.command(0) == "deaf" && stage.attempt() == 1 {
            stage.hang();
        } else {
            stage.start();
            stage.exit(0);
        }
    })
    .starting_at_once();
    with(config, player, |handle| async move {
        let mut request = job(&["deaf"]);
        request.stdin = Some(wpool_protocol::blob::Blob(vec![0; 8 << 20]));
        let deaf = submit(&handle, request).await;
        let quick = submit(&handle, job(&["quick"])).await;
        assert_eq!(outcome(&handle, quick).await.state, JobState::Succeeded);
        assert_eq!(outcome(&handle, deaf).await.attempts.len(), 2);
    });
}

#[test]
fn a_job_that_overruns_its_time_and_its_worker_too_has_timed_out() {
    let mut config = config(1);
    config.pool.overrun_slack = Duration::from_millis(50);
    let player = Player::new(|stage| {
        stage.start();
        stage.write(Stream::Stderr, b"still here");
        stage.hear_out();
    });
    with(config, player, |handle| async move {
        let mut request = job(&["x"]);
        request.limits.timeout_ms = Some(Millis(50));
        let id = submit(&handle, request).await;
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::TimedOut);
        assert_eq!(outcome.stderr.0, b"still here");
        assert_eq!(outcome.attempts[0].end, AttemptEnd::TimedOut);
    });
}

#[test]
fn a_sandbox_that_cannot_be_built_ends_the_driver_with_the_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let end = runtime.block_on(async {
        let cast = Cast::new(Player::refusing());
        let (mut driver, _handle) = Driver::new(config(2), Box::new(cast), Notifier::silent());
        tokio::time::timeout(PATIENCE, driver.run()).await.unwrap()
    });
    let error = end.unwrap_err().to_string();
    assert!(
        error.contains("layer `user`: no user namespaces; remedy: allow them"),
        "{error}"
    );
}

#[test]
fn what_is_said_while_inputs_are_written_does_not_wait_for_their_end() {
    // The inputs are more than the pipe holds, and the player reads nothing before the order to stop is given: it must
    // come between two chunks, before the word to start.
    let (give, given) = std::sync::mpsc::channel::<()>();
    let given = std::sync::Mutex::new(given);
    let player = Player::new(move |stage| {
        given.lock().unwrap().recv().unwrap();
        let is_either =
            |message: &ToWorker| matches!(message, ToWorker::Stop(_) | ToWorker::Start(_));
        let said = stage.hear_until(is_either);
        assert!(matches!(said, Some(ToWorker::Stop(_))), "{said:?}");
        stage.end(wpool_protocol::wire::Ending::Stopped);
    })
    .starting_at_once();
    with(config(1), player, |handle| async move {
        let mut request = job(&["x"]);
        request.stdin = Some(wpool_protocol::blob::Blob(vec![0; 4 << 20]));
        let id = submit(&handle, request).await;
        running(&handle, id).await;
        handle.delete(id, &admin()).await.unwrap();
        give.send(()).unwrap();
        let outcome = outcome(&handle, id).await;
        assert_eq!(outcome.state, JobState::Cancelled);
        assert_eq!(outcome.attempts[0].end, AttemptEnd::Cancelled);
    });
}
