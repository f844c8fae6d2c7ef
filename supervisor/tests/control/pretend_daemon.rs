//! A Unix socket that answers each request with what it was told to, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) line: String,
    /// The body.
    pub(crate) body: String,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing, and the connection stays.
    Silence,
}

/// An answer with this status and JSON.
pub(crate) fn json(status: u16, body: &str) -> Answer {
    let len = body.len();
    Answer::Bytes(
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}")
            .into_bytes(),
    )
}

/// A pretended daemon.
pub(crate) struct PretendDaemon {
    pub(crate) socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    _dir: tempfile::TempDir,
}

impl PretendDaemon {
    /// Listens, and answers as `answer` says. Connections without a request are not asked about.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let Some(request) = read(&stream) else {
                    continue;
                };
                let answer = answer(&request);
                remembered.lock().unwrap().push(request);
                match answer {
                    // A client may have gone: it has what it wanted.
                    Answer::Bytes(bytes) => drop((&stream).write_all(&bytes)),
                    Answer::Silence => held.push(stream),
                }
            }
        });
        Self {
            socket,
            asked,
            _dir: dir,
        }
    }

    /// What was asked until now.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The request lines until now.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

fn read(stream: &UnixStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let line = first.strip_suffix(" HTTP/1.1\r\n")?.to_owned();
    let mut len = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header == "\r\n" {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        line,
        body: String::from_utf8(body).ok()?,
    })
}
