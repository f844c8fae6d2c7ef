//! What an ending means: state, code, signal, cause.

use wpool_pool::event::JobEnd;

use super::{
    AttemptEnd, ByteSize, Cause, CauseDetail, Ending, InGrace, JobEnding, JobState, LimitName,
    Limits, Millis,
};

/// What an ending means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The job's state.
    pub state: JobState,
    /// What it passed to `exit`.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// Why.
    pub cause: Option<Cause>,
}

impl Verdict {
    /// What `ending` means for a job that had these limits.
    pub fn of(ending: &JobEnding, limits: &Limits) -> Self {
        match ending {
            JobEnding::Reported(report) => Self::of_run(&report.ending, limits),
            JobEnding::Cancelled => Self::because(
                JobState::Cancelled,
                CauseDetail::Cancelled,
                "somebody asked for its end".to_owned(),
            ),
            JobEnding::Cleared => Self::because(
                JobState::Cancelled,
                CauseDetail::Cleared,
                "an operator cleared the queue while it waited".to_owned(),
            ),
            JobEnding::Expired(within) => Self::because(
                JobState::Expired,
                CauseDetail::Expired {
                    start_within_ms: within.0,
                },
                format!("it did not start within {within}"),
            ),
            JobEnding::Quarantined { lost, attempts } => Self::because(
                JobState::Quarantined,
                CauseDetail::WorkerLost { attempts: *lost },
                match (lost, attempts) {
                    (1, 0 | 1) => "its worker was lost, and it may cost no other".to_owned(),
                    (lost, attempts) if lost == attempts => {
                        format!("{lost} workers were lost over it, as many as it may cost")
                    }
                    (lost, attempts) => format!(
                        "its worker was lost, and attempt {attempts} was its last; it has cost {lost} in all"
                    ),
                },
            ),
            JobEnding::Overran => {
                let wall = limits.timeout_ms.0.saturating_add(limits.grace_ms.0);
                Self::by_limit(LimitName::Wall, limits, (wall, wall))
            }
            JobEnding::Shutdown => Self::because(
                JobState::Cancelled,
                CauseDetail::Shutdown,
                "the supervisor shut down before it had ended".to_owned(),
            ),
        }
    }

    /// What the end of a run means for a job that had these limits.
    pub fn of_run(ending: &Ending, limits: &Limits) -> Self {
        match *ending {
            Ending::Exited(code) => Self::exited(i32::from(code)),
            Ending::Signaled(number) => Self::signaled(i32::from(number)),
            Ending::TimedOut(in_grace) => {
                let wall = limits.timeout_ms.0;
                let killed = Self::by_limit(LimitName::Wall, limits, (wall, wall));
                let (exit_code, signal) = match in_grace {
                    None => (None, killed.signal),
                    Some(InGrace::Exited(code)) => (Some(i32::from(code)), None),
                    Some(InGrace::Signaled(number)) => (None, Some(signal_name(i32::from(number)))),
                };
                Self {
                    exit_code,
                    signal,
                    ..killed
                }
            }
            Ending::Limit { limit, peak, at_ms } => Self::by_limit(limit, limits, (peak, at_ms)),
            Ending::Stopped => Self {
                signal: Some("SIGKILL".to_owned()),
                ..Self::because(
                    JobState::Cancelled,
                    CauseDetail::Cancelled,
                    "somebody asked for its end while it ran".to_owned(),
                )
            },
            Ending::NotFound => Self::because(
                JobState::Failed,
                CauseDetail::NotFound,
                "there is no such program in the sandbox".to_owned(),
            ),
            Ending::NotExecutable(errno) => Self::because(
                JobState::Failed,
                CauseDetail::NotExecutable,
                format!(
                    "its program cannot be executed: {}",
                    nix::errno::Errno::from_raw(errno).desc()
                ),
            ),
            Ending::Lacking(ref lacks) => Self::because(
                JobState::Failed,
                CauseDetail::NotFound,
                format!(
                    "its program needs {}, which is not in the sandbox",
                    shown(lacks)
                ),
            ),
            // The pool makes of it a lost worker; it is shown only where even that failed.
            Ending::BoxFailed { .. } => Self::because(
                JobState::Failed,
                CauseDetail::NotExecutable,
                "its box has failed".to_owned(),
            ),
        }
    }

    fn because(state: JobState, detail: CauseDetail, text: String) -> Self {
        Self {
            state,
            exit_code: None,
            signal: None,
            cause: Some(Cause { detail, text }),
        }
    }

    fn exited(code: i32) -> Self {
        if code == 0 {
            return Self {
                state: JobState::Succeeded,
                exit_code: Some(0),
                signal: None,
                cause: None,
            };
        }
        Self {
            exit_code: Some(code),
            ..Self::because(
                JobState::Failed,
                CauseDetail::ExitCode { code },
                format!("it exited with code {code}"),
            )
        }
    }

    fn signaled(number: i32) -> Self {
        let name = signal_name(number);
        let text = match name.as_str() {
            "SIGSYS" => FILTERED.to_owned(),
            name => format!("signal {name} ended it"),
        };
        Self {
            signal: Some(name.clone()),
            ..Self::because(JobState::Failed, CauseDetail::Signal { number, name }, text)
        }
    }

    /// A limit ended it: the highest that was seen, and when.
    fn by_limit(limit: LimitName, limits: &Limits, (peak, at_ms): (u64, u64)) -> Self {
        let (state, signal) = match limit {
            LimitName::Wall => (JobState::TimedOut, "SIGKILL"),
            // The kernel's own signal for a file that grows too large.
            LimitName::FileSize => (JobState::LimitExceeded, "SIGXFSZ"),
            LimitName::Cpu
            | LimitName::Idle
            | LimitName::Memory
            | LimitName::Processes
            | LimitName::OpenFiles
            | LimitName::Disk
            | LimitName::Output => (JobState::LimitExceeded, "SIGKILL"),
        };
        let detail = CauseDetail::Limit {
            limit,
            allowed: allowed(limit, limits),
            peak,
            at_ms,
        };
        Self {
            signal: Some(signal.to_owned()),
            ..Self::because(state, detail, limit_in_words(limit, limits, at_ms))
        }
    }
}

/// How a run that was reported ended, for its line among the attempts.
pub fn attempt_end(ending: &Ending) -> AttemptEnd {
    match ending {
        Ending::Exited(_) => AttemptEnd::Exited,
        Ending::Signaled(_) => AttemptEnd::Signaled,
        Ending::NotFound | Ending::NotExecutable(_) | Ending::Lacking(_) => AttemptEnd::NotExecuted,
        Ending::TimedOut(_) => AttemptEnd::TimedOut,
        Ending::Limit { .. } => AttemptEnd::Limit,
        Ending::Stopped => AttemptEnd::Cancelled,
        Ending::BoxFailed { .. } => AttemptEnd::WorkerLost,
    }
}

/// What the pool must know of a run's end.
pub fn job_end(ending: &Ending) -> JobEnd {
    match ending {
        Ending::Exited(0) => JobEnd::Succeeded,
        Ending::Exited(_)
        | Ending::Signaled(_)
        | Ending::NotFound
        | Ending::NotExecutable(_)
        | Ending::Lacking(_) => JobEnd::Failed,
        Ending::TimedOut(_)
        | Ending::Limit {
            limit: LimitName::Wall,
            ..
        } => JobEnd::TimedOut,
        Ending::Limit {
            limit: LimitName::Memory,
            ..
        } => JobEnd::MemoryExceeded,
        Ending::Limit { .. } => JobEnd::LimitExceeded,
        Ending::Stopped => JobEnd::Stopped,
        Ending::BoxFailed { .. } => JobEnd::BoxFailed,
    }
}

/// What SIGSYS says. The filter ends a process in this one case (`Answer::Kill` of the worker's table); of its number, and of
/// whether the process sent itself the signal, the kernel tells nobody outside.
const FILTERED: &str = "signal SIGSYS ended it: the system call filter does that to whoever makes a call by the numbers of another \
     architecture, as 32-bit programs do (unless it sent itself that signal)";

/// A signal's name, like `SIGSEGV`.
pub fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(
        |_| format!("SIG{number}"),
        |signal| signal.as_str().to_owned(),
    )
}

/// Characters of a name of the job's own that a sentence holds.
const SHOWN_MAX: usize = 255;

/// A name that the job may have chosen: without what a terminal would obey, and not endless.
fn shown(name: &str) -> String {
    name.escape_debug().take(SHOWN_MAX).collect()
}

/// What was allowed, in the limit's unit.
fn allowed(limit: LimitName, limits: &Limits) -> u64 {
    match limit {
        LimitName::Wall => limits.timeout_ms.0,
        LimitName::Cpu => limits.cpu_ms.0,
        LimitName::Idle => limits.idle_ms.map_or(0, |idle| idle.0),
        LimitName::Memory => limits.memory_bytes.0,
        LimitName::FileSize => limits.file_size_bytes.0,
        LimitName::Processes => u64::from(limits.processes),
        LimitName::OpenFiles => u64::from(limits.open_files),
        LimitName::Disk => limits.disk_bytes.0,
        LimitName::Output => limits.output_bytes.0,
    }
}

fn limit_in_words(limit: LimitName, limits: &Limits, at_ms: u64) -> String {
    let allowed = allowed(limit, limits);
    let (what, value) = match limit {
        LimitName::Wall => return format!("it ran for {}, its wall time limit", Millis(allowed)),
        LimitName::Cpu => ("CPU time", Millis(allowed).to_string()),
        LimitName::Idle => ("idle time", Millis(allowed).to_string()),
        LimitName::Memory => ("memory", ByteSize(allowed).to_string()),
        LimitName::FileSize => ("a file's size", ByteSize(allowed).to_string()),
        LimitName::Disk => ("disk use", ByteSize(allowed).to_string()),
        LimitName::Output => ("output", ByteSize(allowed).to_string()),
        LimitName::Processes => ("processes", allowed.to_string()),
        LimitName::OpenFiles => ("open files", allowed.to_string()),
    };
    let after = if at_ms < 100 {
        Millis(at_ms).to_string()
    } else {
        let tenths = (at_ms + 50) / 100;
        format!("{}.{} s", tenths / 10, tenths % 10)
    };
    format!("{what} reached {value}, its limit, after {after}")
}
