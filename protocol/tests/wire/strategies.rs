//! Arbitrary messages.
//!
//! Numbers are drawn from their whole range, texts and lists are short: length is what the attacks are for.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use wpool_protocol::id::{AttemptNumber, AttemptRef, JobId, SlotId};
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::outcome::{Identity, IsolationLevel, MeasuredBy, OutputError};
use wpool_protocol::path::BoxPath;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::{
    AttemptReport, Ending, FromWorker, Hello, InGrace, InputBytes, InputHeader, InputTarget,
    IsolationPolicy, JobOrder, LayerReport, LayerState, MountSetup, MountSource, OutputBytes,
    OutputHeader, ProfileSetup, Ready, Refused, RunUsage, Setup, Stdio, StoreLayout, ToWorker,
    Written,
};

/// Anything the supervisor may say.
pub(crate) fn to_worker() -> impl Strategy<Value = ToWorker> {
    prop_oneof![
        hello().prop_map(ToWorker::Hello),
        setup().prop_map(|setup| ToWorker::Setup(Box::new(setup))),
        job_order().prop_map(|order| ToWorker::Job(Box::new(order))),
        input_bytes().prop_map(ToWorker::Input),
        attempt().prop_map(ToWorker::Start),
        attempt().prop_map(ToWorker::Stop),
        written().prop_map(ToWorker::Follow),
        any::<u64>().prop_map(ToWorker::Ping),
        Just(ToWorker::Retire),
    ]
}

/// Anything a worker may say.
pub(crate) fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        hello().prop_map(FromWorker::Hello),
        ready().prop_map(FromWorker::Ready),
        refused().prop_map(FromWorker::Refused),
        attempt().prop_map(FromWorker::Started),
        written().prop_map(FromWorker::Written),
        output_header().prop_map(FromWorker::Output),
        output_bytes().prop_map(FromWorker::OutputBytes),
        attempt_report().prop_map(|report| FromWorker::Ended(Box::new(report))),
        any::<u64>().prop_map(FromWorker::Pong),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<[u8; 8]>(), any::<u32>(), any::<String>()).prop_map(|(magic, protocol, version)| Hello {
        magic,
        protocol,
        version,
    })
}

fn attempt() -> impl Strategy<Value = AttemptRef> {
    (any::<u64>(), any::<std::num::NonZeroU32>()).prop_map(|(job, number)| AttemptRef {
        job: JobId(job),
        attempt: AttemptNumber(number),
    })
}

fn written() -> impl Strategy<Value = Written> {
    (attempt(), any::<u64>(), any::<u64>()).prop_map(|(attempt, stdout, stderr)| Written {
        attempt,
        stdout,
        stderr,
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    select(vec![Identity::Own, Identity::Shared])
}

fn limit_name() -> impl Strategy<Value = LimitName> {
    select(vec![
        LimitName::Wall,
        LimitName::Cpu,
        LimitName::Idle,
        LimitName::Memory,
        LimitName::FileSize,
        LimitName::Processes,
        LimitName::OpenFiles,
        LimitName::Disk,
        LimitName::Output,
    ])
}

fn setup() -> impl Strategy<Value = Setup> {
    let source = prop_oneof![
        any::<Vec<u8>>().prop_map(MountSource::Path),
        any::<u32>().prop_map(MountSource::Descriptor),
    ];
    let mount = (source, any::<String>()).prop_map(|(source, destination)| MountSetup {
        source,
        destination,
    });
    let profile = (any::<String>(), vec(mount, 0..3))
        .prop_map(|(name, mounts)| ProfileSetup { name, mounts });
    (
        any::<u16>(),
        select(vec![IsolationPolicy::Required, IsolationPolicy::Reduced]),
        identity(),
        vec(profile, 0..3),
        any::<u64>(),
        option::of(any::<u32>()),
        option::of(any::<[u32; 3]>()),
        vec(any::<u16>(), 0..4),
        reduction(),
    )
        .prop_map(
            |(
                slot,
                policy,
                identity,
                profiles,
                stream_bytes,
                cgroup,
                stdio,
                cores,
                (job_id, missing, directory),
            )| Setup {
                slot: SlotId(slot),
                policy,
                identity,
                profiles,
                store: StoreLayout { stream_bytes },
                cgroup,
                stdio,
                cores,
                job_id,
                missing,
                directory,
            },
        )
}

fn reduction() -> impl Strategy<Value = (u32, Vec<LayerReport>, Option<Vec<u8>>)> {
    (
        any::<u32>(),
        vec(layer(), 0..3),
        option::of(vec(any::<u8>(), 0..8)),
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let times = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        option::of(any::<u64>()),
    );
    let sizes = any::<[u64; 4]>();
    (times, sizes, any::<[u32; 2]>(), any::<u16>()).prop_map(
        |((timeout, grace, cpu, idle), sizes, [processes, open_files], cpus)| Limits {
            timeout_ms: Millis(timeout),
            grace_ms: Millis(grace),
            cpu_ms: Millis(cpu),
            idle_ms: idle.map(Millis),
            memory_bytes: ByteSize(sizes[0]),
            processes,
            open_files,
            file_size_bytes: ByteSize(sizes[1]),
            disk_bytes: ByteSize(sizes[2]),
            output_bytes: ByteSize(sizes[3]),
            cpus,
        },
    )
}

fn box_path() -> impl Strategy<Value = BoxPath> {
    "[^/\0]{1,20}(/[^/\0]{1,20}){0,4}".prop_filter_map("`.` or `..`", |text| text.parse().ok())
}

fn job_order() -> impl Strategy<Value = JobOrder> {
    let stdio = prop_oneof![
        any::<u64>().prop_map(|stdin_bytes| Stdio::Captured { stdin_bytes }),
        Just(Stdio::Inherited),
    ];
    let input = (box_path(), any::<u32>(), any::<u64>())
        .prop_map(|(name, mode, size)| InputHeader { name, mode, size });
    (
        attempt(),
        any::<u16>(),
        vec(any::<String>(), 0..4),
        vec(any::<(String, String)>(), 0..4),
        limits(),
        stdio,
        vec(input, 0..4),
        vec(any::<String>(), 0..4),
    )
        .prop_map(
            |(attempt, profile, argv, env, limits, stdio, inputs, outputs)| JobOrder {
                attempt,
                profile,
                argv,
                env,
                limits,
                stdio,
                inputs,
                outputs,
            },
        )
}

fn input_bytes() -> impl Strategy<Value = InputBytes> {
    let target = prop_oneof![
        Just(InputTarget::Stdin),
        any::<u16>().prop_map(InputTarget::File),
    ];
    (target, any::<Vec<u8>>()).prop_map(|(target, bytes)| InputBytes { target, bytes })
}

fn layer() -> impl Strategy<Value = LayerReport> {
    let state = prop_oneof![
        any::<String>().prop_map(LayerState::Active),
        any::<(String, String)>()
            .prop_map(|(reason, remedy)| LayerState::Missing { reason, remedy }),
    ];
    (any::<String>(), state).prop_map(|(name, state)| LayerReport { name, state })
}

fn ready() -> impl Strategy<Value = Ready> {
    let level = select(vec![
        IsolationLevel::Full,
        IsolationLevel::Reduced,
        IsolationLevel::Unknown,
    ]);
    (level, identity(), vec(layer(), 0..5)).prop_map(|(level, identity, layers)| Ready {
        level,
        identity,
        layers,
    })
}

fn refused() -> impl Strategy<Value = Refused> {
    any::<[String; 3]>().prop_map(|[layer, reason, remedy]| Refused {
        layer,
        reason,
        remedy,
    })
}

fn output_header() -> impl Strategy<Value = OutputHeader> {
    let error = select(vec![
        OutputError::Missing,
        OutputError::NotRegular,
        OutputError::TooLarge,
        OutputError::TooMany,
        OutputError::Unreadable,
        OutputError::Lost,
    ]);
    let size = prop_oneof![any::<u64>().prop_map(Ok), error.prop_map(Err)];
    (attempt(), any::<Vec<u8>>(), size).prop_map(|(attempt, name, size)| OutputHeader {
        attempt,
        name,
        size,
    })
}

fn output_bytes() -> impl Strategy<Value = OutputBytes> {
    (attempt(), any::<Vec<u8>>()).prop_map(|(attempt, bytes)| OutputBytes { attempt, bytes })
}

fn attempt_report() -> impl Strategy<Value = AttemptReport> {
    let ending =
        prop_oneof![
            any::<u8>().prop_map(Ending::Exited),
            any::<u8>().prop_map(Ending::Signaled),
            Just(Ending::NotFound),
            any::<i32>().prop_map(Ending::NotExecutable),
            prop_oneof![
                Just(None),
                any::<u8>().prop_map(|code| Some(InGrace::Exited(code))),
                any::<u8>().prop_map(|signal| Some(InGrace::Signaled(signal))),
            ]
            .prop_map(Ending::TimedOut),
            (limit_name(), any::<u64>(), any::<u64>())
                .prop_map(|(limit, peak, at_ms)| Ending::Limit { limit, peak, at_ms }),
            Just(Ending::Stopped),
            any::<String>().prop_map(|reason| Ending::BoxFailed { reason }),
            any::<String>().prop_map(Ending::Lacking),
        ];
    let measured_by = select(vec![
        MeasuredBy::Cgroup,
        MeasuredBy::Sampling,
        MeasuredBy::Rusage,
    ]);
    let usage = (any::<[u64; 4]>(), any::<u32>(), measured_by).prop_map(
        |(
            [wall_us, cpu_user_us, cpu_system_us, memory_peak_bytes],
            processes_peak,
            measured_by,
        )| {
            RunUsage {
                wall_us,
                cpu_user_us,
                cpu_system_us,
                memory_peak_bytes,
                processes_peak,
                measured_by,
            }
        },
    );
    (attempt(), ending, vec(limit_name(), 0..9), usage, written()).prop_map(
        |(attempt, ending, limits_hit, usage, written)| AttemptReport {
            attempt,
            ending,
            limits_hit,
            usage,
            written,
        },
    )
}
