//! What the client makes of what a daemon says.

use std::time::Duration;

use wpool::client::follow::OutputEvent;
use wpool::client::socket::SocketError;
use wpool::client::{Client, ClientError, JobAnswer, JobFilter, PoolOrder};
use wpool_protocol::id::JobId;
use wpool_protocol::job::JobRequest;
use wpool_protocol::outcome::JobState;
use wpool_protocol::wire::Stream;

use crate::pretend_daemon::{Answer, PretendDaemon, json};

/// Runs `future` as the command line does: on one thread.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn client(daemon: &PretendDaemon) -> Client {
    Client::find(Some(daemon.socket.clone())).await.unwrap()
}

const ID: JobId = JobId(10);

#[test]
fn a_job_is_submitted_as_json_and_its_id_comes_back() {
    let daemon =
        PretendDaemon::start(|_| json(201, r#"{"id": "000000000000a", "state": "queued"}"#));
    let job = JobRequest {
        command: vec!["true".into()],
        ..JobRequest::default()
    };
    let submitted = run(async { client(&daemon).await.submit(&job).await }).unwrap();
    assert_eq!(submitted.id, ID);
    let asked = daemon.asked();
    assert_eq!(asked[0].line, "POST /v1/jobs");
    assert_eq!(asked[0].body, r#"{"command":["true"]}"#);
}

#[test]
fn a_problem_is_one_sentence_with_when_to_try_again() {
    let daemon = PretendDaemon::start(|_| {
        json(
            429,
            r#"{"type": "urn:wpool:queue-full", "title": "Queue full", "status": 429,
                "detail": "the queue holds 100000 jobs, its limit", "retry_after_ms": 250}"#,
        )
    });
    let error = run(async { client(&daemon).await.status().await }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the queue holds 100000 jobs, its limit (try again in 250 ms)"
    );
    assert_eq!(error.problem().unwrap().status, 429);
}

#[test]
fn an_answer_of_somebody_else_is_an_error_and_not_shown() {
    let daemon = PretendDaemon::start(|asked| match asked.line.as_str() {
        "GET /v1/status" => json(200, "<html>\x1b[2J</html>"),
        _ => json(404, "<html>\x1b[2J</html>"),
    });
    let (status, order) = run(async {
        let client = client(&daemon).await;
        (client.status().await, client.order(PoolOrder::Pause).await)
    });
    assert!(matches!(status.unwrap_err(), ClientError::Foreign(_)));
    assert!(matches!(order.unwrap_err(), ClientError::Status(404)));
}

#[test]
fn a_daemon_that_says_nothing_is_not_waited_for_for_ever() {
    let daemon = PretendDaemon::start(|_| Answer::Silence);
    let error = run(async {
        let client = client(&daemon)
            .await
            .with_patience(Duration::from_millis(50));
        client.status().await
    });
    assert!(matches!(error.unwrap_err(), ClientError::Silent { .. }));
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let daemon = PretendDaemon::start(|_| {
        Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"version\":".to_vec())
    });
    let error = run(async { client(&daemon).await.status().await });
    assert!(matches!(error.unwrap_err(), ClientError::Unreadable(_)));
}

#[test]
fn an_answer_without_end_is_read_no_further_than_its_limit() {
    let daemon = PretendDaemon::start(|_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n".to_vec();
        bytes.resize(bytes.len() + (32 << 20), b' ');
        Answer::Bytes(bytes)
    });
    let error = run(async { client(&daemon).await.status().await }).unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreadable(why) if why.contains("limit")),
        "{error}"
    );
}

#[test]
fn without_a_daemon_the_places_are_named_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("none.sock");
    let error = run(Client::find(Some(nowhere.clone()))).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(nowhere.to_str().unwrap()) && text.contains("wpool serve"),
        "{text}"
    );

    // A socket whose daemon is dead says the same.
    drop(std::os::unix::net::UnixListener::bind(&nowhere).unwrap());
    let error = run(Client::find(Some(nowhere))).unwrap_err();
    assert!(matches!(error, SocketError::NoDaemon { .. }), "{error}");
}

#[test]
fn a_job_that_has_not_ended_is_told_from_one_that_has() {
    let daemon =
        PretendDaemon::start(|_| json(202, r#"{"id": "000000000000a", "state": "running"}"#));
    let answer = run(async {
        client(&daemon)
            .await
            .result(ID, Duration::from_secs(2))
            .await
    });
    match answer.unwrap() {
        JobAnswer::Present(present) => assert_eq!(present.state, JobState::Running),
        JobAnswer::Ended(outcome) => panic!("{outcome:?}"),
    }
    assert_eq!(
        daemon.lines(),
        ["GET /v1/jobs/000000000000a/result?wait=2000ms"]
    );
}

#[test]
fn a_tenant_in_a_query_cannot_add_to_it() {
    let daemon = PretendDaemon::start(|_| json(200, r#"{"jobs": [], "next": null}"#));
    let filter = JobFilter {
        state: Some(JobState::Failed),
        tenant: Some("a&limit=9 ü".into()),
    };
    run(async { client(&daemon).await.jobs(&filter, 5, Some(ID)).await }).unwrap();
    assert_eq!(
        daemon.lines(),
        ["GET /v1/jobs?limit=5&state=failed&tenant=a%26limit%3D9%20%C3%BC&before=000000000000a"]
    );
}

#[test]
fn output_is_followed_to_the_end_of_the_job() {
    let lines = "{\"stream\":\"stdout\",\"attempt\":1,\"offset\":0,\"data\":\"hi\\n\"}\n{\"end\":\"succeeded\"}\n";
    let daemon = PretendDaemon::start(move |_| {
        let (first, second) = lines.split_at(30);
        let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for chunk in [first, second, ""] {
            answer = format!("{answer}{:x}\r\n{chunk}\r\n", chunk.len());
        }
        Answer::Bytes(answer.into_bytes())
    });
    let events = run(async {
        let mut follower = client(&daemon).await.follow(ID).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = follower.next().await.unwrap() {
            events.push(event);
        }
        events
    });
    assert_eq!(
        events,
        [
            OutputEvent::Bytes(Stream::Stdout, b"hi\n".to_vec()),
            OutputEvent::Ended(JobState::Succeeded, None),
        ]
    );
}

#[test]
fn orders_to_the_pool_are_the_routes_of_the_control_socket() {
    let daemon = PretendDaemon::start(|_| json(200, "{}"));
    run(async {
        let client = client(&daemon).await;
        for order in [
            PoolOrder::Pause,
            PoolOrder::Resume,
            PoolOrder::Drain,
            PoolOrder::DrainQueued,
        ] {
            client.order(order).await.unwrap();
        }
    });
    let asked: Vec<_> = daemon
        .asked()
        .into_iter()
        .map(|asked| format!("{} {}", asked.line, asked.body))
        .collect();
    assert_eq!(
        asked,
        [
            r#"PATCH /v1/pool {"state":"paused"}"#,
            r#"PATCH /v1/pool {"state":"running"}"#,
            r#"POST /v1/pool/drain {"queued":false}"#,
            r#"POST /v1/pool/drain {"queued":true}"#,
        ]
    );
}
