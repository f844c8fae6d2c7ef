//! The routes over a real Unix socket, with a driver whose workers a test plays.

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
        let (driver, handle) = Driver::new(config, cast, Notifier::silent());
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

#[test]
fn what_is_wrong_with_a_request_is_one_clear_problem() {
    let mut config = config();
    config.http.body_bytes_max = 4_096;
    with(config, Player::honest(), |client| async move {
        let post = |body: &str| client.ask(Method::POST, "/v1/jobs", body.to_owned());
        let large = format!("{{\"command\": [\"{}\"]}}", "x".repeat(5_000));
        for (answer, status, words) in [
            (
                post("{\"command\": [\"x\"").await,
                400,
                "EOF while parsing a list at line 1 column 16",
            ),
            (
                post("{\"command\": [\"x\"], \"colour\": 1}").await,
                422,
                "unknown field `colour`",
            ),
            (post("{\"command\": []}").await, 422, "command: it is empty"),
            (
                post("{\"command\": [\"x\"], \"limits\": {\"memory_bytes\": 99999999999999}}")
                    .await,
                422,
                "limits.memory_bytes is 99999999999999 B, above the highest allowed, 16 GiB",
            ),
            (
                post("{\"command\": [\"x\"], \"profile\": \"nope\"}").await,
                422,
                "there are: default",
            ),
            (post(&large).await, 413, "the body is larger than 4 KiB"),
            (
                client
                    .post("/v1/jobs?wait=soon", &json!({"command": ["x"]}))
                    .await,
                400,
                "wait: `soon` is not a duration",
            ),
            (
                client.get("/v1/jobs?state=odd").await,
                400,
                "unknown variant `odd`",
            ),
            (
                client.get("/v1/jobs?limit=9999").await,
                400,
                "limit: it is 9999 and must be 1 to 1000",
            ),
            (
                client.get("/v1/jobs/nonsense").await,
                400,
                "`nonsense` is not a job id",
            ),
            (
                client.get("/v1/nothing").await,
                404,
                "there is nothing at /v1/nothing",
            ),
            (
                client.ask(Method::PUT, "/v1/jobs", "").await,
                405,
                "does not know this method",
            ),
            (
                client.ask(Method::PATCH, "/v1/pool", "{}").await,
                400,
                "paused",
            ),
        ] {
            assert_eq!(answer.status.as_u16(), status, "{:?}", answer.body);
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(words), "{detail}");
        }
    });
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    with(config(), Player::honest(), |client| async move {
        let mut stream = client.connect().await;
        stream
            .write_all(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
    });
}

#[test]
fn a_full_queue_says_which_limit_and_when_to_come_again() {
    let mut config = config();
    config.pool.queue_jobs = 1;
    with(config, Player::honest(), |client| async move {
        client.submit(&["until-stopped"]).await;
        let refused = client.post("/v1/jobs", &json!({"command": ["x"]})).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        let problem = refused.json();
        assert_eq!(problem["limit"], "queue_jobs");
        assert_eq!(problem["allowed"], 1);
        assert!(problem["retry_after_ms"].as_u64().unwrap() > 0);
        assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
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
            lines.push_str(&format!("{{\"command\": [\"write\", \"{n}\", \"\"]}}\n"));
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

#[test]
fn idle_connections_and_half_sent_requests_make_room() {
    let mut config = config();
    config.http.connections_max = 8;
    config.http.connections_per_peer_max = 8;
    config.http.body_timeout = Duration::from_millis(200);
    with(config, Player::honest(), |client| async move {
        let mut idle = Vec::new();
        for n in 0..100 {
            let mut stream = client.connect().await;
            match n % 3 {
                0 => {}
                1 => stream.write_all(b"GET /v1/sta").await.unwrap_or_default(),
                _ => stream
                    .write_all(b"POST /v1/jobs HTTP/1.1\r\ncontent-length: 99\r\n\r\n{")
                    .await
                    .unwrap_or_default(),
            }
            idle.push(stream);
        }
        // At the latest when the bodies that were begun are overdue, there is room again.
        loop {
            let mut stream = client.connect().await;
            let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut answer = Vec::new();
            let asked = stream.write_all(request).await;
            if asked.is_ok()
                && stream.read_to_end(&mut answer).await.is_ok()
                && answer.starts_with(b"HTTP/1.1 200")
            {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(idle);
    });
}

#[test]
fn a_connection_that_idles_too_long_is_closed() {
    let mut config = config();
    config.http.header_timeout = Duration::from_millis(50);
    with(config, Player::honest(), |client| async move {
        for begun in [&b""[..], b"GET / HTT"] {
            let mut stream = client.connect().await;
            stream.write_all(begun).await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
        }
        // After an answer too.
        let mut stream = client.connect().await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.starts_with(b"HTTP/1.1 200"));
    });
}

#[test]
fn somebody_who_may_not_is_not_answered() {
    let stranger = Access {
        owner: rustix::process::geteuid().as_raw() + 1,
        group: None,
    };
    if rustix::process::geteuid().is_root() {
        // Root may everything: what a stranger may is tested in `peer`.
        return;
    }
    with_access(
        config(),
        Player::honest(),
        stranger,
        |client, _| async move {
            let mut stream = client.connect().await;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap_or_default();
            assert!(answer.is_empty());
        },
    );
}

#[test]
fn when_the_supervisor_goes_waiters_are_answered_202() {
    with_access(
        config(),
        Player::honest(),
        access(),
        |client, end| async move {
            let id = client.submit(&["until-stopped"]).await;
            let path = format!("/v1/jobs/{id}/result?wait=1h");
            let (answer, ()) = tokio::join!(client.get(&path), async {
                // Only once the request is there: a connection that comes later is not accepted.
                while client.get("/v1/status").await.json()["active"] != 1 {
                    tokio::task::yield_now().await;
                }
                end.send_replace(true);
            });
            assert_eq!(answer.status, StatusCode::ACCEPTED);
            assert_eq!(answer.json()["state"], "running");
        },
    );
}

#[test]
fn too_many_waiters_are_refused_before_anything_is_accepted() {
    let mut config = config();
    config.http.waiters_max = 1;
    with(config, Player::honest(), |client| async move {
        let id = client.submit(&["until-stopped"]).await;
        let path = format!("/v1/jobs/{id}/result?wait=1h");
        let wait = client.get(&path);
        let test = async {
            loop {
                let job = json!({"command": ["write", "", ""]});
                let answer = client.post("/v1/jobs?wait=1ms", &job).await;
                if answer.status == StatusCode::TOO_MANY_REQUESTS {
                    assert_eq!(answer.json()["limit"], "http.waiters_max");
                    break;
                }
            }
        };
        tokio::select! {
            _ = wait => panic!("the job goes on"),
            () = test => {}
        }
    });
}
