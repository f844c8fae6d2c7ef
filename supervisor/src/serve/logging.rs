//! The log on standard error: lines for people, or JSON.
//!
//! # Invariants
//!
//! - What jobs wrote, or were given, is in no line: only ids, numbers, and words of our own.
//! - Nobody waits for the reader of the log: a thread of its own writes, and where that comes to a stand, lines are lost.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Lines that may wait to be written.
const LINES_MAX: usize = 8_192;

/// Starts the log. A second start changes nothing.
///
/// What waits is written when the guard goes, if that takes no longer than a second.
pub(super) fn start(settings: LogSettings) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .thread_name("wpool-log")
        .finish(io::stderr());
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false);
    let registry = tracing_subscriber::registry().with(level);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // The journal has times of its own.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal();
    let started = match settings.format {
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_span_list(false))
            .try_init(),
        LogFormat::Human if is_journal => registry
            .with(lines.with_ansi(false).without_time())
            .try_init(),
        LogFormat::Human => registry
            .with(lines.with_ansi(io::stderr().is_terminal() && !no_colour))
            .try_init(),
    };
    // It fails only where somebody has set a log already: a test, or a second daemon in one process.
    started.unwrap_or_default();
    guard
}
