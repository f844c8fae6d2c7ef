//! One message of every kind, and of what the richer kinds may hold.

use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId, SlotId};
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::{Identity, IsolationLevel, MeasuredBy, OutputError};
use wpool_protocol::quantity::Millis;
use wpool_protocol::wire::{
    AttemptReport, Ending, FromWorker, Hello, InGrace, InputBytes, InputHeader, InputTarget,
    IsolationPolicy, JobOrder, LayerReport, LayerState, MountSetup, MountSource, OutputBytes,
    OutputHeader, ProfileSetup, Ready, Refused, RunUsage, Setup, Stdio, StoreLayout, ToWorker,
    Written,
};

const ATTEMPT: AttemptRef = AttemptRef {
    job: JobId(0x0123_4567_89ab_cdef),
    attempt: AttemptNumber::FIRST,
};

const WRITTEN: Written = Written {
    attempt: ATTEMPT,
    stdout: 300,
    stderr: 70_000,
};

/// The same for every version of the binary, unlike [`Hello::ours`].
fn hello() -> Hello {
    Hello {
        magic: Hello::MAGIC,
        protocol: 1,
        version: "0.1.0".to_owned(),
    }
}

fn setup() -> Setup {
    Setup {
        slot: SlotId(3),
        policy: IsolationPolicy::Required,
        identity: Identity::Own,
        profiles: vec![ProfileSetup {
            name: "default".to_owned(),
            mounts: vec![
                MountSetup {
                    source: MountSource::Path(b"/opt/venv".to_vec()),
                    destination: "/opt/venv".to_owned(),
                },
                MountSetup {
                    source: MountSource::Descriptor(7),
                    destination: "/data".to_owned(),
                },
            ],
        }],
        store: StoreLayout {
            stream_bytes: 1 << 20,
        },
        cgroup: Some(6),
        stdio: Some([8, 9, 10]),
        cores: vec![0, 300],
        job_id: 1000,
        missing: vec![LayerReport {
            name: "mount".to_owned(),
            state: LayerState::Missing {
                reason: "refused".to_owned(),
                remedy: "allow it".to_owned(),
            },
        }],
        directory: Some(b"/tmp/boxes/slot-3".to_vec()),
    }
}

fn order(stdio: Stdio) -> JobOrder {
    JobOrder {
        attempt: ATTEMPT,
        profile: 1,
        argv: vec!["python3".to_owned(), "main.py".to_owned()],
        env: vec![("LANG".to_owned(), "C.UTF-8".to_owned())],
        limits: Limits {
            idle_ms: Some(Millis(2_000)),
            cpu_ms: Millis(30_000),
            ..Limits::DEFAULT
        },
        stdio,
        inputs: vec![InputHeader {
            name: "src/main.py".parse().unwrap(),
            mode: 0o644,
            size: 65_536,
        }],
        outputs: vec!["out/*.png".to_owned()],
    }
}

/// What the supervisor says, by the name of its golden frame.
pub(crate) fn to_worker() -> Vec<(&'static str, ToWorker)> {
    vec![
        ("hello", ToWorker::Hello(hello())),
        ("setup", ToWorker::Setup(Box::new(setup()))),
        (
            "setup_reduced",
            ToWorker::Setup(Box::new(Setup {
                policy: IsolationPolicy::Reduced,
                identity: Identity::Shared,
                cgroup: None,
                stdio: None,
                ..setup()
            })),
        ),
        (
            "job",
            ToWorker::Job(Box::new(order(Stdio::Captured { stdin_bytes: 5 }))),
        ),
        (
            "job_inherited",
            ToWorker::Job(Box::new(order(Stdio::Inherited))),
        ),
        (
            "input_stdin",
            ToWorker::Input(InputBytes {
                target: InputTarget::Stdin,
                bytes: b"hello".to_vec(),
            }),
        ),
        (
            "input_file",
            ToWorker::Input(InputBytes {
                target: InputTarget::File(1),
                bytes: vec![0, 255],
            }),
        ),
        ("start", ToWorker::Start(ATTEMPT)),
        ("stop", ToWorker::Stop(ATTEMPT)),
        ("follow", ToWorker::Follow(WRITTEN)),
        ("ping", ToWorker::Ping(u64::MAX)),
        ("retire", ToWorker::Retire),
    ]
}

fn ended(ending: Ending) -> FromWorker {
    FromWorker::Ended(Box::new(AttemptReport {
        attempt: ATTEMPT,
        ending,
        limits_hit: vec![
            LimitName::Wall,
            LimitName::Cpu,
            LimitName::Idle,
            LimitName::Memory,
            LimitName::FileSize,
            LimitName::Processes,
            LimitName::OpenFiles,
            LimitName::Disk,
            LimitName::Output,
        ],
        usage: RunUsage {
            wall_us: 815_200,
            cpu_user_us: 700_100,
            cpu_system_us: 60_900,
            memory_peak_bytes: 1 << 33,
            processes_peak: 3,
            measured_by: MeasuredBy::Sampling,
        },
        written: WRITTEN,
    }))
}

fn output(name: &[u8], size: Result<u64, OutputError>) -> FromWorker {
    FromWorker::Output(OutputHeader {
        attempt: ATTEMPT,
        name: name.to_vec(),
        size,
    })
}

fn ready() -> FromWorker {
    FromWorker::Ready(Ready {
        level: IsolationLevel::Reduced,
        identity: Identity::Shared,
        layers: vec![
            LayerReport {
                name: "landlock".to_owned(),
                state: LayerState::Active("ABI 7".to_owned()),
            },
            LayerReport {
                name: "cgroup".to_owned(),
                state: LayerState::Missing {
                    reason: "no controller is delegated".to_owned(),
                    remedy: "Delegate=yes".to_owned(),
                },
            },
        ],
    })
}

/// What a worker says, by the name of its golden frame.
pub(crate) fn from_worker() -> Vec<(&'static str, FromWorker)> {
    vec![
        ("hello", FromWorker::Hello(hello())),
        ("ready", ready()),
        (
            "refused",
            FromWorker::Refused(Refused {
                layer: "seccomp".to_owned(),
                reason: "failed to load the filter: EINVAL".to_owned(),
                remedy: "a kernel with CONFIG_SECCOMP_FILTER".to_owned(),
            }),
        ),
        ("started", FromWorker::Started(ATTEMPT)),
        ("written", FromWorker::Written(WRITTEN)),
        ("output", output(b"report.json", Ok(70_000))),
        ("output_missing", output(b"a", Err(OutputError::Missing))),
        (
            "output_not_regular",
            output(b"\xff", Err(OutputError::NotRegular)),
        ),
        ("output_too_large", output(b"a", Err(OutputError::TooLarge))),
        ("output_too_many", output(b"*", Err(OutputError::TooMany))),
        (
            "output_unreadable",
            output(b"a", Err(OutputError::Unreadable)),
        ),
        ("output_lost", output(b"a", Err(OutputError::Lost))),
        (
            "output_bytes",
            FromWorker::OutputBytes(OutputBytes {
                attempt: ATTEMPT,
                bytes: b"{}\n".to_vec(),
            }),
        ),
        ("ended_exited", ended(Ending::Exited(3))),
        ("ended_signaled", ended(Ending::Signaled(11))),
        ("ended_not_found", ended(Ending::NotFound)),
        ("ended_not_executable", ended(Ending::NotExecutable(13))),
        ("ended_timed_out", ended(Ending::TimedOut(None))),
        (
            "ended_timed_out_in_grace",
            ended(Ending::TimedOut(Some(InGrace::Signaled(15)))),
        ),
        (
            "ended_limit",
            ended(Ending::Limit {
                limit: LimitName::Memory,
                peak: 1 << 28,
                at_ms: 812,
            }),
        ),
        ("ended_stopped", ended(Ending::Stopped)),
        (
            "ended_unbuilt",
            ended(Ending::BoxFailed {
                reason: "failed to mount the box: ENOSPC".to_owned(),
            }),
        ),
        (
            "ended_lacking",
            ended(Ending::Lacking("/lib/ld-musl-x86_64.so.1".to_owned())),
        ),
        ("pong", FromWorker::Pong(251)),
    ]
}
