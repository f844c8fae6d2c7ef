//! The log on standard error: lines for people, or JSON.
//!
//! # Invariants
//!
//! - What jobs wrote, or were given, is in no line: only ids, numbers, and words of our own.
//! - Nobody waits for the reader of the log: a thread of its own writes, and where that comes to a stand, lines are lost.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::writer::LastLines;
use crate::config::{LogFormat, LogLevel, LogSettings};

mod writer;

/// Starts the log. A second start changes nothing.
///
/// # Errors
///
/// [`io::Error`] if there can be no thread for it.
pub(super) fn start(settings: LogSettings) -> io::Result<LastLines> {
    let (writer, last_lines) = writer::start(io::stderr())?;
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
    Ok(last_lines)
}
