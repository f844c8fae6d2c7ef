//! A stream on which no refusal goes out without a word: hyper answers what is no HTTP with a head alone.
//!
//! # Invariants
//!
//! - Only a head of hyper's own is replaced: one of these statuses, without a body, in one write. Ours have one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Status line, and the problem document that goes with it.
const EXPLANATIONS: [(&str, &str); 3] = [
    (
        "HTTP/1.1 400 Bad Request\r\n",
        r#"{"type":"urn:wpool:bad-request","title":"the request is malformed","status":400,"detail":"this is not HTTP/1.1, or its content-length is no number; send a request such as GET /v1/status"}"#,
    ),
    (
        "HTTP/1.1 414 URI Too Long\r\n",
        r#"{"type":"urn:wpool:too-large","title":"the request is too large","status":414,"detail":"the path is too long; send a shorter one"}"#,
    ),
    (
        "HTTP/1.1 431 Request Header Fields Too Large\r\n",
        r#"{"type":"urn:wpool:too-large","title":"the request is too large","status":431,"detail":"the head is larger than http.header_bytes_max, or has more than 100 fields; send less, or raise that","limit":"http.header_bytes_max"}"#,
    ),
];

/// A stream that explains hyper's refusals.
#[derive(Debug)]
pub(super) struct Explained<S> {
    stream: S,
    /// What is being written in the place of a refusal.
    explanation: Vec<u8>,
    written: usize,
}

impl<S> Explained<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            explanation: Vec::new(),
            written: 0,
        }
    }
}

/// What to write in the place of `head`.
fn explain(head: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(head).ok()?;
    let (status, body) = EXPLANATIONS
        .iter()
        .find(|(status, _)| text.starts_with(status))?;
    let is_bare = text.contains("\r\ncontent-length: 0\r\n") && text.ends_with("\r\n\r\n");
    is_bare.then(|| {
        let len = body.len();
        format!("{status}content-type: application/problem+json\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}")
            .into_bytes()
    })
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.explanation.is_empty() {
            match explain(buf) {
                None => return Pin::new(&mut this.stream).poll_write(cx, buf),
                Some(explanation) => this.explanation = explanation,
            }
        }
        while let Some(rest) = this
            .explanation
            .get(this.written..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(Pin::new(&mut this.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => this.written += written,
            }
        }
        this.explanation.clear();
        this.written = 0;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
