//! The routes over a real Unix socket, with a driver whose workers a test plays.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Method, Request, Response, StatusCode};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use wpool_protocol::wire::Stream as OutputStream;

use super::peer::Access;
use super::server::serve;
use super::*;
use crate::config::Config;
use crate::driver::Driver;
use crate::driver::tests::player::{Cast, Player};
use crate::notify::Notifier;

mod bounds;

/// A guard against hanging; no claim of speed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Client {
    socket: PathBuf,
}

struct Answer {
    status: StatusCode,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn lines(&self) -> Vec<Value> {
        let lines = self.body.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    async fn send<B>(&self, request: Request<B>) -> Response<hyper::body::Incoming>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = hyper_util::rt::TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        drop(tokio::spawn(async move { drop(connection.await) }));
        sender.send_request(request).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Full::new(body.into()))
            .unwrap();
        collect(self.send(request).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, body.to_string()).await
    }

    async fn submit(&self, command: &[&str]) -> String {
        let answer = self.post("/v1/jobs", &json!({"command": command})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

async fn collect(response: Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

fn access() -> Access {
    Access {
        owner: rustix::process::geteuid().as_raw(),
        group: None,
    }
}

/// Runs `test` against a daemon with this config, without its signals and files.
fn with<F: Future>(config: Config, player: Player, test: impl FnOnce(Client) -> F) -> F::Output {
    with_access(config, player, access(), |client, end| async move {
        let result = test(client).await;
        // Without anybody who could tell, the server takes it that the end has come.
        drop(end);
        result
    })
}

fn with_access<F: Future>(
    config: Config,
    player: Player,
    access: Access,
    test: impl FnOnce(Client, watch::Sender<bool>) -> F,
) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let socket = dir.path().join("control.sock");
        let listener = listen(&socket);
        let cast = Box::new(Cast::new(player));
        let (mut driver, handle) = Driver::new(config, cast, Notifier::silent());
        let (end, ending) = watch::channel(false);
        drop(tokio::spawn(serve(
            listener,
            access,
            Shared::new(handle, ending),
        )));
        let test = test(Client { socket }, end);
        tokio::select! {
            result = async { tokio::time::timeout(PATIENCE, test).await.expect("the test ends in time") } => result,
            end = driver.run() => panic!("the driver ended first: {end:?}"),
        }
    })
}

fn listen(socket: &Path) -> interprocess::local_socket::tokio::Listener {
    let name = socket.to_fs_name::<GenericFilePath>().unwrap();
    let options = ListenerOptions::new().name(name);
    interprocess::local_socket::tokio::Listener::from_options(options).unwrap()
}

fn config() -> Config {
    Config::default_for(1)
}

#[test]
fn a_job_is_submitted_waited_for_shown_and_forgotten() {
    with(config(), Player::honest(), |client| async move {
        let job = json!({"command": ["write", "hello", ""]});
        let answer = client.post("/v1/jobs?wait=30s", &job).await;
        assert_eq!(answer.status, StatusCode::OK);
        let outcome = answer.json();
        assert_eq!(outcome["state"], "succeeded");
        assert_eq!(outcome["stdout"], "hello");
        assert_eq!(
            outcome["tenant"],
            format!("uid:{}", rustix::process::geteuid().as_raw())
        );
        let path = format!("/v1/jobs/{}", outcome["id"].as_str().unwrap());
        assert_eq!(client.get(&path).await.json(), outcome);
        let result = client.get(&format!("{path}/result")).await;
        assert_eq!((result.status, result.json()), (StatusCode::OK, outcome));
        let forgotten = client.ask(Method::DELETE, &path, "").await;
        assert_eq!(forgotten.status, StatusCode::NO_CONTENT);
        let gone = client.get(&path).await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND);
        assert_eq!(gone.header("content-type"), "application/problem+json");
        assert_eq!(gone.json()["type"], "urn:wpool:no-job");
    });
}

#[test]
fn a_job_that_goes_on_is_202_and_can_be_ended() {
    with(config(), Player::honest(), |client| async move {
        let answer = client
            .post("/v1/jobs", &json!({"command": ["until-stopped"]}))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.json()["state"], "queued");
        let path = answer.header("location").to_owned();
        let present = client.get(&format!("{path}/result?wait=1ms")).await;
        assert_eq!(present.status, StatusCode::ACCEPTED);
        let shown = client.get(&path).await.json();
        assert_eq!(shown["command"], "until-stopped");
        let asked = client.ask(Method::DELETE, &path, "").await;
        assert_eq!(asked.status, StatusCode::ACCEPTED);
        let ended = client.get(&format!("{path}/result?wait=30s")).await.json();
        assert_eq!(ended["state"], "cancelled");
        assert_eq!(ended["cause"]["kind"], "cancelled");
    });
}

fn assert_refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status.as_u16(), status, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(words), "{detail}");
}

#[test]
fn what_is_wrong_with_a_job_is_one_clear_problem() {
    let mut config = config();
    config.http.body_bytes_max = 4_096;
    with(config, Player::honest(), |client| async move {
        let large = format!(r#"{{"command": ["{}"]}}"#, "x".repeat(5_000));
        let absurd = r#"{"command": ["x"], "limits": {"memory_bytes": 99999999999999}}"#;
        let refused = "limits.memory_bytes is 99999999999999 B, above the highest allowed, 16 GiB";
        let nowhere = r#"{"command": ["x"], "profile": "nope"}"#;
        let unknown = r#"{"command": ["x"], "colour": 1}"#;
        let broken = r#"{"command": ["x""#;
        for (body, status, words) in [
            (broken, 400, "EOF while parsing a list at line 1 column 16"),
            (unknown, 422, "unknown field `colour`"),
            (r#"{"command": []}"#, 422, "command: it is empty"),
            (absurd, 422, refused),
            (nowhere, 422, "there are: default"),
            (&large, 413, "the body is larger than 4 KiB"),
        ] {
            let answer = client.ask(Method::POST, "/v1/jobs", body.to_owned()).await;
            assert_refused(&answer, status, words);
        }
    });
}

#[test]
fn what_is_wrong_with_a_path_or_parameter_is_one_clear_problem() {
    with(config(), Player::honest(), |client| async move {
        let limit = "limit: it is 9999 and must be 1 to 1000";
        let soon = "wait: `soon` is not a duration";
        for (method, path, status, words) in [
            (Method::POST, "/v1/jobs?wait=soon", 400, soon),
            (
                Method::GET,
                "/v1/jobs?state=odd",
                400,
                "unknown variant `odd`",
            ),
            (Method::GET, "/v1/jobs?limit=9999", 400, limit),
            (
                Method::GET,
                "/v1/jobs/nonsense",
                400,
                "`nonsense` is not a job id",
            ),
            (
                Method::GET,
                "/v1/nothing",
                404,
                "there is nothing at /v1/nothing",
            ),
            (Method::PUT, "/v1/jobs", 405, "does not know this method"),
            (Method::PATCH, "/v1/pool", 400, "paused"),
        ] {
            let body = r#"{"command": ["x"]}"#;
            let body = if path == "/v1/pool" { "{}" } else { body };
            let answer = client.ask(method, path, body).await;
            assert_refused(&answer, status, words);
        }
    });
}

#[test]
fn the_pool_is_shown_paused_drained_and_resumed() {
    with(config(), Player::honest(), |client| async move {
        let state = |answer: Answer| answer.json()["state"].as_str().unwrap().to_owned();
        client
            .post("/v1/jobs?wait=30s", &json!({"command": ["fail"]}))
            .await;
        let status = client.get("/v1/status").await.json();
        assert_eq!(status["ended"]["failed"], 1);
        assert_eq!(status["ended"]["succeeded"], 0);
        assert_eq!(status["workers"][0]["state"], "idle");
        assert_eq!(client.get("/readyz").await.status, StatusCode::OK);
        assert_eq!(client.get("/healthz").await.body, "ok\n");
        let paused = client.ask(Method::PATCH, "/v1/pool", "{\"state\":\"paused\"}");
        assert_eq!(state(paused.await), "paused");
        let id = client.submit(&["write", "x", ""]).await;
        let drained = client
            .post("/v1/pool/drain", &json!({"queued": true}))
            .await;
        assert_eq!(state(drained), "draining");
        let refused = client.post("/v1/jobs", &json!({"command": ["x"]})).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.json()["type"], "urn:wpool:draining");
        assert_ne!(refused.header("retry-after"), "");
        let running = client.ask(Method::PATCH, "/v1/pool", "{\"state\":\"running\"}");
        assert_eq!(state(running.await), "running");
        let path = format!("/v1/jobs/{id}/result?wait=30s");
        assert_eq!(client.get(&path).await.json()["state"], "succeeded");
    });
}

#[test]
fn a_batch_answers_every_line_and_a_full_queue_slows_it() {
    let mut config = config();
    config.pool.queue_jobs = 2;
    with(config, Player::honest(), |client| async move {
        let mut lines = String::from("\n{\"command\": }\n   \n");
        for n in 4..12 {
            writeln!(lines, "{{\"command\": [\"write\", \"{n}\", \"\"]}}").unwrap();
        }
        lines.push_str("{\"command\": [\"fail\"]}");
        let answer = client
            .ask(Method::POST, "/v1/jobs/batch?wait=30s", lines)
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let mut answers = answer.lines();
        answers.sort_by_key(|answer| answer["line"].as_u64());
        let numbers: Vec<_> = answers
            .iter()
            .map(|answer| answer["line"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(answers[0]["problem"]["status"], 400);
        for answer in &answers[1..9] {
            assert_eq!(answer["stdout"], answer["line"].to_string());
        }
        assert_eq!(answers[9]["exit_code"], 3);
    });
}

#[test]
fn a_batch_is_answered_while_it_is_still_being_sent() {
    with(config(), Player::honest(), |client| async move {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = futures_util::stream::poll_fn(move |cx| {
            let next = receiver.poll_recv(cx);
            next.map(|bytes| bytes.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes))))
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/jobs/batch")
            .body(StreamBody::new(frames))
            .unwrap();
        sender
            .send("{\"command\": [\"a\"]}\n{\"comm".into())
            .await
            .unwrap();
        let mut body = client.send(request).await.into_body();
        let mut next = async || {
            let frame = body.frame().await?.unwrap();
            serde_json::from_slice::<Value>(&frame.into_data().unwrap()).ok()
        };
        assert_eq!(next().await.unwrap()["line"], 1);
        sender.send("and\": [\"b\"]}\n".into()).await.unwrap();
        let second = next().await.unwrap();
        assert_eq!(
            (&second["line"], &second["state"]),
            (&json!(2), &json!("queued"))
        );
        drop(sender);
        assert!(next().await.is_none());
    });
}

#[test]
fn output_is_followed_as_it_comes_and_read_when_it_is_over() {
    let player = Player::new(|stage| {
        stage.start();
        for n in 0..3u8 {
            stage.write(OutputStream::Stdout, &[b'a' + n]);
            stage.until_followed();
        }
        stage.write(OutputStream::Stderr, b"\xff");
        stage.exit(0);
    });
    with(config(), player, |client| async move {
        let id = client.submit(&["x"]).await;
        let followed = client
            .get(&format!("/v1/jobs/{id}/output?follow=true"))
            .await;
        let lines = followed.lines();
        let (end, chunks) = lines.split_last().unwrap();
        assert_eq!(end, &json!({"end": "succeeded"}));
        let stdout: String = chunks
            .iter()
            .filter(|chunk| chunk["stream"] == "stdout")
            .map(|chunk| chunk["data"].as_str().unwrap())
            .collect();
        assert_eq!(stdout, "abc");
        let stderr = chunks.iter().find(|chunk| chunk["stream"] == "stderr");
        assert_eq!(stderr.unwrap()["data"]["base64"], "/w==");
        let raw = client
            .get(&format!("/v1/jobs/{id}/output?stream=stdout"))
            .await;
        assert_eq!(raw.body, "abc");
        let told = client
            .get(&format!("/v1/jobs/{id}/output?outcome=true"))
            .await;
        let last = told.lines().pop().unwrap();
        assert_eq!(last["end"], last["outcome"]["state"], "{last}");
        assert_eq!(last["outcome"]["id"], id, "{last}");
        let odd = client
            .get(&format!("/v1/jobs/{id}/output?stream=stdout&outcome=true"))
            .await;
        assert_refused(&odd, 400, "outcome");
        let odd = client
            .get(&format!("/v1/jobs/{id}/output?stream=stdin"))
            .await;
        assert_eq!(odd.status, StatusCode::BAD_REQUEST);
    });
}

#[test]
fn a_gap_in_a_long_output_is_told() {
    let player = Player::new(|stage| {
        stage.start();
        stage.write(OutputStream::Stdout, b"0123456789");
        stage.exit(0);
    });
    with(config(), player, |client| async move {
        let job = json!({"command": ["x"], "limits": {"output_bytes": 4}});
        let outcome = client.post("/v1/jobs?wait=30s", &job).await.json();
        assert_eq!(outcome["stdout"], "0189");
        let id = outcome["id"].as_str().unwrap();
        let raw = client
            .get(&format!("/v1/jobs/{id}/output?stream=stdout"))
            .await;
        assert_eq!(raw.body, "01\n[wpool: 6 bytes are left out]\n89");
        let lines = client.get(&format!("/v1/jobs/{id}/output")).await.lines();
        assert_eq!(lines[1]["lagged"], 6);
        assert_eq!(lines[1]["offset"], 8);
    });
}

#[test]
fn a_large_outcome_arrives_whole() {
    let player = Player::new(|stage| {
        stage.start();
        stage.write(OutputStream::Stdout, &vec![b'\x01'; 900_000]);
        stage.exit(0);
    });
    with(config(), player, |client| async move {
        let job = json!({"command": ["x"]});
        let answer = client.post("/v1/jobs?wait=30s", &job).await;
        let outcome = answer.json();
        assert_eq!(outcome["stdout"].as_str().unwrap().len(), 900_000);
        assert!(answer.body.len() > 5_000_000);
    });
}
