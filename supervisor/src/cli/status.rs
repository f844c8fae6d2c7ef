//! `wpool status`: the pool, its workers and its queue at a glance.

use std::time::Duration;

use clap::Args;
use wpool_protocol::outcome::{IsolationLevel, JobState};
use wpool_protocol::status::{PoolState, PoolStatus, QueuePressure, SlotState};

use super::outcome::duration;
use super::screen::{Colours, Form, Screen, Tone};
use super::table::{Cell, Table};
use super::{SocketArgs, escape};

/// How often `--watch` looks, as long as somebody watches.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show the pool, its workers and its queue
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wpool status\n  wpool status --watch\n  wpool status --json | jq .queued.total"
)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Show it again every second, until interrupted
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn status(args: StatusArgs, screen: &mut Screen<'_>) -> anyhow::Result<u8> {
    let client = args.socket.client().await?;
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = client.status().await?;
        match (screen.form(), args.watch) {
            (Form::Json, true) => screen.json_line(&status)?,
            (Form::Json, false) => screen.json(&status)?,
            (Form::Text, _) => {
                if args.watch {
                    screen.clear()?;
                }
                for line in lines(&status, screen.colours()) {
                    screen.line(&line)?;
                }
            }
        }
        if !args.watch {
            return Ok(0);
        }
        screen.flush()?;
    }
}

fn lines(status: &PoolStatus, colours: Colours) -> Vec<String> {
    let mut lines = vec![heading(status, colours)];
    let queued = &status.queued;
    let pressure = match status.queue_pressure {
        QueuePressure::Ok => "ok".to_owned(),
        QueuePressure::Filling => colours.paint(Tone::Attention, "filling"),
        QueuePressure::Full => colours.paint(Tone::Bad, "full"),
    };
    lines.push(format!(
        "queue     {} waiting (high {}, normal {}, low {}; {} delayed), at most {}: {pressure}",
        queued.total,
        queued.high,
        queued.normal,
        queued.low,
        queued.delayed,
        status.limits.queue_jobs
    ));
    let mut ended = format!(
        "jobs      {} running, {} ended",
        status.active, status.completed
    );
    for (n, (state, count)) in status
        .ended
        .iter()
        .filter(|(_, count)| **count > 0)
        .enumerate()
    {
        let before = if n == 0 { ": " } else { ", " };
        ended = format!("{ended}{before}{count} {}", in_words(*state));
    }
    lines.push(ended);
    lines.push(isolation(status, colours));
    lines.push(String::new());
    lines.extend(workers(status).lines(colours));
    lines
}

fn heading(status: &PoolStatus, colours: Colours) -> String {
    let tone = match status.state {
        PoolState::Running => Tone::Good,
        PoolState::Paused | PoolState::Draining | PoolState::Stopping => Tone::Attention,
        PoolState::Degraded => Tone::Bad,
    };
    let mut line = format!(
        "pool      {}, wpool {}, up {}",
        colours.paint(tone, status.state.as_str()),
        escape::line(&status.version),
        duration(status.uptime_ms)
    );
    if let Some(reason) = &status.reason {
        line.push_str(": ");
        line.push_str(&escape::line(reason));
    }
    line
}

fn isolation(status: &PoolStatus, colours: Colours) -> String {
    let isolation = &status.isolation;
    let level = match isolation.level {
        IsolationLevel::Full => colours.paint(Tone::Good, "full"),
        IsolationLevel::Reduced => colours.paint(Tone::Bad, "reduced"),
        IsolationLevel::Unknown => "not known yet".to_owned(),
    };
    let mut line = format!("isolation {level}");
    if !isolation.missing.is_empty() {
        let names: Vec<_> = isolation
            .missing
            .iter()
            .map(|missing| escape::line(&missing.layer))
            .collect();
        line = format!("{line}; missing: {} (see `wpool doctor`)", names.join(", "));
    }
    line
}

fn workers(status: &PoolStatus) -> Table {
    let mut table = Table::new([
        "SLOT", "GEN", "PID", "STATE", "SINCE", "DONE", "CRASHES", "JOB",
    ]);
    for worker in &status.workers {
        let state = worker.state.as_str();
        let state = match worker.state {
            SlotState::Busy => Cell::toned(state, Tone::Good),
            SlotState::Idle => state.into(),
            SlotState::Starting | SlotState::Recycling => Cell::toned(state, Tone::Attention),
            SlotState::Parked => Cell::toned(state, Tone::Bad),
        };
        let job = worker
            .job
            .map(|id| id.to_string())
            .or_else(|| worker.reason.clone());
        table.row([
            worker.slot.to_string().into(),
            worker.generation.to_string().into(),
            worker
                .pid
                .map(|pid| pid.to_string())
                .unwrap_or_default()
                .into(),
            state,
            duration(worker.since_ms).into(),
            worker.jobs_done.to_string().into(),
            worker.crashes.to_string().into(),
            Cell::cut(job.unwrap_or_default(), 60),
        ]);
    }
    table
}

fn in_words(state: JobState) -> String {
    state.as_str().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"version": "0.1.0", "state": "degraded", "reason": "slot 1 is \u001b[5mparked", "uptime_ms": 3723000,
        "active": 1, "completed": 123, "last_job_at": null, "ended": {"succeeded": 120, "failed": 3, "timed_out": 0},
        "queued": {"total": 7, "high": 0, "normal": 7, "low": 0, "delayed": 0}, "queue_pressure": "ok",
        "workers": [
            {"slot": 0, "generation": 3, "state": "busy", "job": "000000000000a", "since_ms": 12, "jobs_done": 61, "crashes": 2, "pid": 4242},
            {"slot": 1, "generation": 9, "state": "parked", "job": null, "since_ms": 61000, "jobs_done": 0, "crashes": 5, "pid": null, "reason": "5 deaths\nin 30 s"}],
        "limits": {"queue_jobs": 100000, "queue_bytes": 1073741824},
        "isolation": {"level": "reduced", "identity": "own", "layers": ["user"], "missing": [{"layer": "landlock", "reason": "the kernel has none"}]}}"#;

    #[test]
    fn the_status_fits_a_screen_and_holds_nothing_that_a_terminal_obeys() {
        let status: PoolStatus = serde_json::from_str(STATUS).unwrap();
        let text = lines(&status, Colours::Off).join("\n");
        assert!(!text.contains('\x1b'));
        insta::assert_snapshot!(text);
    }
}
