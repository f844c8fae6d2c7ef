//! Reports of workers become outcomes that read as promised.

use std::fmt::Write as _;

use wpool_pool::event::JobEnd;
use wpool_protocol::id::{AttemptNumber, AttemptRef};
use wpool_protocol::outcome::MeasuredBy;
use wpool_protocol::wire::Written;

use super::*;

const ATTEMPT: AttemptRef = AttemptRef {
    job: JobId(7),
    attempt: AttemptNumber::FIRST,
};

fn report(ending: Ending) -> Box<AttemptReport> {
    Box::new(AttemptReport {
        attempt: ATTEMPT,
        ending,
        limits_hit: vec![LimitName::Disk],
        usage: RunUsage {
            wall_us: 815_234,
            cpu_user_us: 700_111,
            cpu_system_us: 60_949,
            memory_peak_bytes: 1 << 20,
            processes_peak: 3,
            measured_by: MeasuredBy::Sampling,
        },
        written: Written {
            attempt: ATTEMPT,
            stdout: 10,
            stderr: 0,
        },
    })
}

fn ended(ending: JobEnding) -> Ended {
    Ended {
        id: JobId(7),
        tenant: "uid:1000".into(),
        priority: Priority::High,
        labels: BTreeMap::from([("run".to_owned(), "7".to_owned())]),
        limits: Limits {
            memory_bytes: ByteSize::mib(256),
            timeout_ms: Millis(5_000),
            ..Limits::DEFAULT
        },
        queued_at: Timestamp(1_795_485_107_042),
        ended_at: Timestamp(1_795_485_108_042),
        attempts: Vec::new(),
        streams: Streams {
            stdout: KeptOutput {
                bytes: b"hello".to_vec(),
                truncated: true,
            },
            stdout_bytes: 10,
            ..Streams::default()
        },
        files: BTreeMap::new(),
        isolation: Isolation::default(),
        released_from: None,
        ending,
    }
}

#[test]
fn an_outcome_reads_as_promised() {
    let outcome = outcome(ended(JobEnding::Reported(report(Ending::Limit {
        limit: LimitName::Memory,
        peak: 268_435_456,
        at_ms: 812,
    }))));
    insta::assert_snapshot!(serde_json::to_string_pretty(&outcome).unwrap());
}

#[test]
fn every_end_has_its_state_code_signal_and_sentence() {
    let reported = |ending| JobEnding::Reported(report(ending));
    let mut table = String::new();
    for ending in [
        reported(Ending::Exited(0)),
        reported(Ending::Exited(3)),
        reported(Ending::Signaled(11)),
        reported(Ending::Signaled(31)),
        reported(Ending::Signaled(40)),
        reported(Ending::NotFound),
        reported(Ending::NotExecutable(8)),
        reported(Ending::Lacking("/opt/bin/python3".to_owned())),
        reported(Ending::TimedOut(None)),
        reported(Ending::TimedOut(Some(InGrace::Exited(0)))),
        reported(Ending::TimedOut(Some(InGrace::Signaled(15)))),
        reported(Ending::Limit {
            limit: LimitName::Cpu,
            peak: 5_001,
            at_ms: 2_560,
        }),
        reported(Ending::Limit {
            limit: LimitName::FileSize,
            peak: 1,
            at_ms: 60_000,
        }),
        reported(Ending::Stopped),
        JobEnding::Cancelled,
        JobEnding::Cleared,
        JobEnding::Expired(Millis(1_500)),
        JobEnding::Quarantined {
            lost: 1,
            attempts: 1,
        },
        JobEnding::Quarantined {
            lost: 3,
            attempts: 3,
        },
        JobEnding::Quarantined {
            lost: 1,
            attempts: 3,
        },
        JobEnding::Overran,
        JobEnding::Shutdown,
    ] {
        let outcome = outcome(ended(ending));
        assert_eq!(
            outcome.cause.is_none(),
            outcome.state == JobState::Succeeded
        );
        writeln!(
            table,
            "{:<14} code {:<8} signal {:<17} exit {:<3} {}",
            outcome.state,
            format!("{:?}", outcome.exit_code),
            format!("{:?}", outcome.signal),
            outcome.process_exit_code(),
            outcome.cause.as_ref().map_or("", |cause| &cause.text),
        )
        .unwrap();
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_pool_hears_of_a_wall_limit_as_a_timeout() {
    let wall = Ending::Limit {
        limit: LimitName::Wall,
        peak: 1,
        at_ms: 1,
    };
    assert_eq!(job_end(&wall), JobEnd::TimedOut);
    assert_eq!(job_end(&Ending::Exited(0)), JobEnd::Succeeded);
    assert_eq!(job_end(&Ending::NotFound), JobEnd::Failed);
}
