//! Runs against a worker that follows a script: what the real one would never do is done here.

use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use proptest::prelude::*;
use wpool_protocol::blob::Blob;
use wpool_protocol::frame::Decoder;
use wpool_protocol::job::{InputContent, InputFile};
use wpool_protocol::outcome::{
    CauseDetail, Identity, IsolationLevel, JobState, MeasuredBy, OutputFile,
};
use wpool_protocol::wire::{
    Hello, InputBytes, IsolationPolicy, LayerReport, LayerState, OutputBytes, OutputHeader,
    RunUsage, Setup, StoreLayout, Stream, Written,
};

use super::*;
use crate::output::OutputStore;

/// The worker's ends.
struct Puppet {
    commands: io::PipeReader,
    replies: io::PipeWriter,
    decoder: Decoder,
}

impl Puppet {
    /// The next command; `None` when the run is over.
    fn hear(&mut self) -> Option<ToWorker> {
        use std::io::Read as _;
        let mut bytes = [0; 4096];
        loop {
            if let Some(command) = self.decoder.message().unwrap() {
                return Some(command);
            }
            match self.commands.read(&mut bytes).unwrap() {
                0 => return None,
                len => self.decoder.extend(&bytes[..len]),
            }
        }
    }

    fn say(&mut self, message: &FromWorker) {
        use std::io::Write as _;
        let mut bytes = Vec::new();
        wpool_protocol::frame::push(message, &mut bytes).unwrap();
        // The run may have ended already: that is for the test to judge.
        drop(self.replies.write_all(&bytes));
    }

    /// Greets and hears everything up to `Start`.
    fn take_job(&mut self) -> (AttemptRef, Vec<InputBytes>) {
        self.say(&FromWorker::Hello(Hello::ours()));
        assert!(matches!(self.hear(), Some(ToWorker::Hello(_))));
        assert!(matches!(self.hear(), Some(ToWorker::Setup(_))));
        self.say(&FromWorker::Ready(ready()));
        let mut inputs = Vec::new();
        loop {
            match self.hear() {
                Some(ToWorker::Job(_)) => {}
                Some(ToWorker::Input(input)) => inputs.push(input),
                Some(ToWorker::Start(attempt)) => {
                    self.say(&FromWorker::Started(attempt));
                    return (attempt, inputs);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn end(&mut self, attempt: AttemptRef, ending: Ending) {
        self.say(&FromWorker::Ended(Box::new(AttemptReport {
            attempt,
            ending,
            limits_hit: Vec::new(),
            usage: RunUsage {
                wall_us: 815_249,
                cpu_user_us: 700_100,
                cpu_system_us: 60_900,
                memory_peak_bytes: 1 << 20,
                processes_peak: 3,
                measured_by: MeasuredBy::Sampling,
            },
            written: Written {
                attempt,
                stdout: 3,
                stderr: 0,
            },
        })));
    }
}

fn ready() -> Ready {
    let layer = |name: &str, state| LayerReport {
        name: name.into(),
        state,
    };
    Ready {
        level: IsolationLevel::Full,
        identity: Identity::Shared,
        layers: vec![
            layer("user", LayerState::Active(String::new())),
            layer(
                "landlock",
                LayerState::Missing {
                    reason: "the kernel has none".into(),
                    remedy: "upgrade".into(),
                },
            ),
        ],
    }
}

/// A worker that does what `script` does, and a run for it.
fn staged(
    request: JobRequest,
    script: impl FnOnce(&mut Puppet) + Send + 'static,
) -> (Run, Worker, UnixStream, JoinHandle<()>) {
    let (commands, ours) = io::pipe().unwrap();
    let (replies, theirs) = io::pipe().unwrap();
    let layout = StoreLayout { stream_bytes: 64 };
    let mut store = vec![0; 16];
    store.extend(b"out");
    store.resize(usize::try_from(layout.len()).unwrap(), 0);
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &store, 0).unwrap();
    let worker = Worker {
        commands: ours.into(),
        replies: replies.into(),
        process: None,
        store: OutputStore::new(file, layout),
        setup: Setup {
            slot: worker::SELF.slot,
            policy: IsolationPolicy::Required,
            identity: Identity::Shared,
            profiles: Vec::new(),
            store: layout,
            cgroup: None,
            stdio: None,
            cores: Vec::new(),
            job_id: wpool_protocol::wire::JOB_ID,
            missing: Vec::new(),
            directory: None,
        },
    };
    let puppet = std::thread::spawn(move || {
        script(&mut Puppet {
            commands,
            replies: theirs,
            decoder: Decoder::default(),
        });
    });
    let (told, interruptions) = Interruptions::by_hand();
    let run = Run {
        limits: request
            .limits
            .resolve(&Limits::DEFAULT, &Limits::CEILING)
            .unwrap(),
        request,
        env: BTreeMap::new(),
        live: None,
        interruptions,
        asked: live::Asked::Nothing,
    };
    (run, worker, told, puppet)
}

fn request() -> JobRequest {
    JobRequest {
        command: vec!["x".into()],
        ..JobRequest::default()
    }
}

/// Runs a job with a worker that does what `script` does.
fn run_with(
    request: JobRequest,
    script: impl FnOnce(&mut Puppet) + Send + 'static,
) -> Result<RunEnd, RunError> {
    let (run, worker, _told, puppet) = staged(request, script);
    let end = run.with(worker);
    puppet.join().unwrap();
    end
}

fn outcome(end: Result<RunEnd, RunError>) -> Outcome {
    match end.unwrap() {
        RunEnd::Ended(outcome) => *outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_comes_to_its_outcome_with_output_files_and_usage() {
    let end = run_with(request(), |puppet| {
        let (attempt, _) = puppet.take_job();
        puppet.say(&FromWorker::Output(OutputHeader {
            attempt,
            name: b"r.txt".to_vec(),
            size: Ok(2),
        }));
        puppet.say(&FromWorker::OutputBytes(OutputBytes {
            attempt,
            bytes: b"ok".to_vec(),
        }));
        puppet.end(attempt, Ending::Exited(3));
        assert!(matches!(puppet.hear(), Some(ToWorker::Retire)));
    });
    let outcome = outcome(end);
    assert_eq!(outcome.state, JobState::Failed);
    assert_eq!(outcome.process_exit_code(), 3);
    assert_eq!(outcome.stdout, Blob(b"out".to_vec()));
    assert_eq!(outcome.files["r.txt"], OutputFile::Text("ok".into()));
    assert!((outcome.usage.unwrap().wall_ms - 815.25).abs() < 1e-9);
    assert_eq!(outcome.isolation.layers, ["user"]);
    assert_eq!(outcome.isolation.missing[0].layer, "landlock");
}

#[test]
fn every_ending_has_its_state_and_exit_code() {
    let cases = [
        (Ending::Exited(0), JobState::Succeeded, 0),
        (Ending::Signaled(11), JobState::Failed, 139),
        (Ending::TimedOut(None), JobState::TimedOut, 124),
        (
            Ending::Limit {
                limit: wpool_protocol::limits::LimitName::Memory,
                peak: 1 << 30,
                at_ms: 812,
            },
            JobState::LimitExceeded,
            137,
        ),
        (Ending::Stopped, JobState::Cancelled, 125),
    ];
    for (ending, state, code) in cases {
        let said = ending.clone();
        let outcome = outcome(run_with(request(), |puppet| {
            let (attempt, _) = puppet.take_job();
            puppet.end(attempt, said);
        }));
        assert_eq!(outcome.state, state, "{ending:?}");
        assert_eq!(outcome.process_exit_code(), code, "{ending:?}");
        assert_eq!(outcome.cause.is_some(), state != JobState::Succeeded);
    }
}

#[test]
fn a_limit_is_named_with_its_value_and_when() {
    let outcome = outcome(run_with(request(), |puppet| {
        let (attempt, _) = puppet.take_job();
        puppet.end(
            attempt,
            Ending::Limit {
                limit: wpool_protocol::limits::LimitName::Memory,
                peak: 600 << 20,
                at_ms: 812,
            },
        );
    }));
    let cause = outcome.cause.unwrap();
    assert_eq!(cause.text, "memory reached 512 MiB, its limit, after 0.8 s");
    assert!(matches!(
        cause.detail,
        CauseDetail::Limit {
            allowed: 536_870_912,
            peak: 629_145_600,
            at_ms: 812,
            ..
        }
    ));
}

#[test]
fn a_program_that_is_not_there_has_no_outcome() {
    let end = run_with(request(), |puppet| {
        let (attempt, _) = puppet.take_job();
        puppet.end(attempt, Ending::NotFound);
    });
    assert!(matches!(end, Ok(RunEnd::NotFound)));
    let end = run_with(request(), |puppet| {
        let (attempt, _) = puppet.take_job();
        puppet.end(attempt, Ending::NotExecutable(13));
    });
    assert!(
        matches!(end, Ok(RunEnd::NotExecutable(error)) if error.kind() == io::ErrorKind::PermissionDenied)
    );
}

#[test]
fn inputs_larger_than_a_pipe_arrive_whole() {
    let content: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut request = request();
    request.stdin = Some(Blob(b"stdin".to_vec()));
    request.files.insert(
        "f".parse().unwrap(),
        InputFile {
            content: InputContent::Bytes(content.clone()),
            mode: 0o644,
        },
    );
    run_with(request, move |puppet| {
        let (attempt, inputs) = puppet.take_job();
        assert_eq!(inputs[0].bytes, b"stdin");
        let file: Vec<u8> = inputs[1..]
            .iter()
            .flat_map(|input| &input.bytes)
            .copied()
            .collect();
        assert!(file == content, "the file came out of order or cut");
        puppet.end(attempt, Ending::Exited(0));
    })
    .unwrap();
}

#[test]
fn a_refusal_names_layer_reason_and_remedy() {
    let error = run_with(request(), |puppet| {
        puppet.say(&FromWorker::Hello(Hello::ours()));
        puppet.say(&FromWorker::Refused(Refused {
            layer: "net".into(),
            reason: "bring up the loopback device: not permitted".into(),
            remedy: "ask root".into(),
        }));
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the sandbox cannot be built: layer `net`: bring up the loopback device: not permitted; remedy: ask root"
    );
}

#[test]
fn a_worker_that_breaks_the_protocol_is_lost() {
    let stranger = run_with(request(), |puppet| {
        puppet.say(&FromWorker::Hello(Hello {
            version: "9.9.9".into(),
            ..Hello::ours()
        }));
    });
    assert!(matches!(
        stranger,
        Err(RunError::Lost(DialogueError::Stranger(_)))
    ));

    let forward = run_with(request(), |puppet| {
        puppet.say(&FromWorker::Ready(ready()));
    });
    assert!(matches!(
        forward,
        Err(RunError::Lost(DialogueError::Unasked))
    ));

    let dead = run_with(request(), |puppet| {
        puppet.take_job();
    });
    assert!(matches!(dead, Err(RunError::Lost(DialogueError::Died))));

    let liar = run_with(request(), |puppet| {
        let (attempt, _) = puppet.take_job();
        let other = AttemptRef {
            job: attempt.job.next(),
            ..attempt
        };
        puppet.end(other, Ending::Exited(0));
    });
    assert!(matches!(liar, Err(RunError::Lost(DialogueError::Unasked))));

    let garbage = run_with(request(), |puppet| {
        use std::io::Write as _;
        puppet.take_job();
        puppet.replies.write_all(&[0xff; 64]).unwrap();
    });
    assert!(matches!(
        garbage,
        Err(RunError::Lost(DialogueError::Garbled(_)))
    ));
}

#[test]
fn the_first_interruption_asks_and_the_second_does_not() {
    use std::io::Write as _;

    let (run, worker, mut told, puppet) = staged(request(), |puppet| {
        let (attempt, _) = puppet.take_job();
        assert!(matches!(puppet.hear(), Some(ToWorker::Stop(_))));
        puppet.end(attempt, Ending::Stopped);
    });
    told.write_all(&[0]).unwrap();
    assert_eq!(outcome(run.with(worker)).state, JobState::Cancelled);
    puppet.join().unwrap();

    let (hand, take) = std::sync::mpsc::channel::<UnixStream>();
    let (run, worker, mut told, puppet) = staged(request(), move |puppet| {
        puppet.take_job();
        assert!(matches!(puppet.hear(), Some(ToWorker::Stop(_))));
        take.recv().unwrap().write_all(&[0]).unwrap();
        assert!(puppet.hear().is_none(), "it is not heard out");
    });
    told.write_all(&[0]).unwrap();
    hand.send(told).unwrap();
    assert!(matches!(run.with(worker), Ok(RunEnd::Abandoned)));
    puppet.join().unwrap();
}

#[test]
fn what_the_store_holds_is_what_is_kept() {
    // The stage's store holds "out" and zeros: a report of more than it holds brings zeros, never another's bytes.
    let (_, worker, _told, puppet) = staged(request(), |_| {});
    let kept = worker.store.kept(Stream::Stdout, 64, 3).unwrap();
    assert_eq!(kept.bytes, b"out");
    puppet.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_worker_sends_the_run_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let end = run_with(request(), move |puppet| {
            use std::io::Write as _;
            puppet.take_job();
            drop(puppet.replies.write_all(&bytes));
        });
        prop_assert!(end.is_err());
    }
}
