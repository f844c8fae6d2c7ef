//! Clients that take more than they may, or that are slow, or gone.

use super::*;

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
        // Who had to make room was not only forgotten, but closed.
        let mut rest = Vec::new();
        idle[0].read_to_end(&mut rest).await.unwrap_or_default();
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
fn what_is_no_http_is_told_so_in_a_problem_document() {
    let long = |len: usize| "x".repeat(len);
    let fields = "x: 1\r\n".repeat(101);
    let cases = [
        (400, "\x16\x03\x01 hello\r\n\r\n".to_owned()),
        (
            400,
            "GET /v1/status HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        ),
        (414, format!("GET /{} HTTP/1.1\r\n\r\n", long(66_000))),
        (
            431,
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", long(100_000)),
        ),
        (431, format!("GET / HTTP/1.1\r\n{fields}\r\n")),
    ];
    let mut config = config();
    config.http.header_bytes_max = 80_000;
    with(config, Player::honest(), |client| async move {
        for (status, request) in cases {
            let mut stream = client.connect().await;
            // It may be answered before it has been sent whole.
            stream
                .write_all(request.as_bytes())
                .await
                .unwrap_or_default();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap_or_default();
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("application/problem+json"), "{head}");
            let problem: Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["status"], status, "{problem}");
            assert!(
                problem["detail"]
                    .as_str()
                    .is_some_and(|text| text.contains("send")),
                "{problem}"
            );
        }
    });
}

#[test]
fn somebody_who_may_not_is_not_answered() {
    let stranger = Access {
        owner: rustix::process::geteuid().as_raw() + 1,
        group: None,
    };
    if rustix::process::geteuid().is_root() {
        let reason =
            "skipped: root may connect everywhere: a stranger is tried as an ordinary user\n";
        std::io::Write::write_all(&mut std::io::stderr(), reason.as_bytes()).unwrap();
        return;
    }
    with_access(
        config(),
        Player::honest(),
        stranger,
        |client, _| async move {
            // It is closed so soon that connecting may already fail.
            let mut answer = Vec::new();
            if let Ok(mut stream) = UnixStream::connect(&client.socket).await {
                stream.read_to_end(&mut answer).await.unwrap_or_default();
            }
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
                // Only once the request is there: who comes later is told at once.
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
            // Whichever of the two came later is refused.
            answer = wait => assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS),
            () = test => {}
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
