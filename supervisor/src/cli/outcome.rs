//! An outcome, told to people.

use wpool_protocol::outcome::{AttemptEnd, CauseDetail, JobState, Outcome, OutputFile};
use wpool_protocol::quantity::ByteSize;

use super::escape;
use super::screen::{Colours, Tone};

/// What colour a state has.
pub(crate) fn tone(state: JobState) -> Option<Tone> {
    match state {
        JobState::Queued => Some(Tone::Quiet),
        JobState::Running => None,
        JobState::Succeeded => Some(Tone::Good),
        JobState::Failed | JobState::TimedOut | JobState::LimitExceeded | JobState::Quarantined => {
            Some(Tone::Bad)
        }
        JobState::Cancelled | JobState::Expired => Some(Tone::Attention),
    }
}

/// One sentence about an outcome whose exit code does not say it all; `None` where it does.
pub(crate) fn remark(outcome: &Outcome) -> Option<String> {
    let cause = outcome.cause.as_ref()?;
    match &cause.detail {
        CauseDetail::ExitCode { .. } => None,
        // `wpool run -- yes | head -1`: whoever closed the pipe need not be told.
        CauseDetail::Signal { name, .. } if name == "SIGPIPE" => None,
        CauseDetail::Signal { .. }
        | CauseDetail::Limit { .. }
        | CauseDetail::NotFound
        | CauseDetail::NotExecutable
        | CauseDetail::Cancelled
        | CauseDetail::Expired { .. }
        | CauseDetail::WorkerLost { .. }
        | CauseDetail::Shutdown
        | CauseDetail::SupervisorLost
        | CauseDetail::Cleared => Some(cause.text.clone()),
    }
}

/// The lines about an outcome.
pub(crate) fn lines(outcome: &Outcome, colours: Colours) -> Vec<String> {
    let mut facts = verdict(outcome, colours);
    facts.extend(streams(outcome));
    facts.extend(usage(outcome));
    for (name, file) in &outcome.files {
        let text = format!("{} ({})", escape::line(name), file_in_words(file));
        facts.push(("file", text));
    }
    facts.extend(losses(outcome));
    facts.push(("queued", outcome.queued_at.to_string()));
    if let Some(started_at) = outcome.started_at {
        facts.push(("started", started_at.to_string()));
    }
    facts.push(("ended", outcome.ended_at.to_string()));
    for (name, value) in &outcome.labels {
        let text = format!("{}={}", escape::line(name), escape::line(value));
        facts.push(("label", text));
    }
    facts
        .into_iter()
        .map(|(name, text)| format!("{name:<10} {text}"))
        .collect()
}

/// A word and what there is to say of it, escaped.
type Said = (&'static str, String);

fn verdict(outcome: &Outcome, colours: Colours) -> Vec<Said> {
    let state = outcome.state.as_str();
    let state = match tone(outcome.state) {
        Some(tone) => colours.paint(tone, state),
        None => state.to_owned(),
    };
    let mut facts = vec![("job", outcome.id.to_string()), ("state", state)];
    if let Some(cause) = &outcome.cause {
        facts.push(("cause", escape::line(&cause.text).into_owned()));
    }
    if let Some(code) = outcome.exit_code {
        facts.push(("exit code", code.to_string()));
    }
    if let Some(signal) = &outcome.signal {
        facts.push(("signal", escape::line(signal).into_owned()));
    }
    if !outcome.limits_hit.is_empty() {
        let names: Vec<_> = outcome
            .limits_hit
            .iter()
            .map(|name| name.as_str())
            .collect();
        facts.push(("limits hit", names.join(", ")));
    }
    facts
}

fn streams(outcome: &Outcome) -> [Said; 2] {
    [
        ("stdout", outcome.stdout_bytes, outcome.stdout_truncated),
        ("stderr", outcome.stderr_bytes, outcome.stderr_truncated),
    ]
    .map(|(name, bytes, is_truncated)| {
        let cut = if is_truncated {
            ", the middle left out"
        } else {
            ""
        };
        (name, format!("{bytes} bytes{cut}"))
    })
}

fn usage(outcome: &Outcome) -> Option<Said> {
    let usage = outcome.usage?;
    let cpu_ms = usage.cpu_user_ms + usage.cpu_system_ms;
    let text = format!(
        "{:.1} ms, {cpu_ms:.1} ms of CPU, {} of memory, processes: {}",
        usage.wall_ms,
        size(usage.memory_peak_bytes),
        usage.processes_peak
    );
    Some(("used", text))
}

fn losses(outcome: &Outcome) -> impl Iterator<Item = Said> {
    outcome
        .attempts
        .iter()
        .filter(|attempt| attempt.end == AttemptEnd::WorkerLost)
        .map(|attempt| {
            let detail = attempt.detail.as_deref();
            let text = format!(
                "attempt {} with worker {}.{}: {}",
                attempt.number,
                attempt.slot,
                attempt.generation,
                escape::line(detail.unwrap_or("nothing is known of it"))
            );
            ("lost", text)
        })
}

fn file_in_words(file: &OutputFile) -> String {
    match file {
        OutputFile::Text(text) => format!("{} bytes", text.len()),
        OutputFile::Base64(coded) => format!("about {} bytes", coded.len() / 4 * 3),
        OutputFile::Error(error) => {
            let name = serde_json::to_value(error).unwrap_or_default();
            name.as_str().unwrap_or("lost").to_owned()
        }
    }
}

/// A size for people: three digits are enough, unlike where it is to be parsed back.
pub(crate) fn size(bytes: ByteSize) -> String {
    let (unit, name) = match bytes.0 {
        0..1_024 => return format!("{} B", bytes.0),
        1_024..1_048_576 => (1_024, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576, "MiB"),
        _ => (1_073_741_824, "GiB"),
    };
    let tenths = (u128::from(bytes.0) * 10 + unit / 2) / unit;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// A duration for people.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..59_950 => {
            let tenths = (ms + 50) / 100;
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
        59_950..3_600_000 => {
            let s = (ms + 500) / 1_000;
            format!("{} min {} s", s / 60, s % 60)
        }
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An outcome whose every text is hostile.
    pub(crate) fn hostile() -> Outcome {
        serde_json::from_str(
            r#"{"id": "000000000000a", "state": "limit_exceeded", "exit_code": null, "signal": "SIG\u001b[2J",
                "cause": {"kind": "limit", "limit": "memory", "allowed": 268435456, "peak": 268435456, "at_ms": 812,
                          "text": "memory\r\nreached \u009b2J"},
                "limits_hit": ["processes"], "stdout": "\u001b[31m", "stderr": "", "stdout_bytes": 5,
                "stdout_truncated": true, "stderr_bytes": 0, "stderr_truncated": false,
                "files": {"\u001b]0;x\u0007": {"text": "abc"}, "\u202ex": {"error": "too_large"}},
                "usage": {"wall_ms": 815.2, "cpu_user_ms": 700.1, "cpu_system_ms": 60.9, "memory_peak_bytes": 268435456,
                          "processes_peak": 3, "measured_by": "cgroup"},
                "attempts": [{"number": 1, "slot": 0, "generation": 3, "started_at": "2026-11-24T01:51:47.042Z",
                              "ended_at": "2026-11-24T01:51:47.142Z", "end": "worker_lost", "detail": "\u001b"}],
                "isolation": {"level": "full", "identity": "own", "layers": ["user"], "missing": []},
                "queued_at": "2026-11-24T01:51:47.042Z", "started_at": "2026-11-24T01:51:47.050Z",
                "ended_at": "2026-11-24T01:51:48.042Z", "tenant": "acme", "priority": "high",
                "labels": {"\u001b[1m": "\n"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn an_outcome_is_told_in_lines_that_no_terminal_obeys() {
        let lines = lines(&hostile(), Colours::Off);
        assert!(
            lines.iter().all(|line| !line.contains(char::is_control)),
            "{lines:#?}"
        );
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn sizes_and_durations_are_short() {
        assert_eq!(size(ByteSize(999)), "999 B");
        assert_eq!(size(ByteSize::mib(256)), "256.0 MiB");
        assert_eq!(size(ByteSize(u64::MAX)), "17179869184.0 GiB");
        assert_eq!(duration(950), "950 ms");
        assert_eq!(duration(1_260), "1.3 s");
        assert_eq!(duration(59_960), "1 min 0 s");
        assert_eq!(duration(61_400), "1 min 1 s");
        assert_eq!(duration(90_000_000), "1 d 1 h");
    }
}
