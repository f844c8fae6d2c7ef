//! Workers that a test plays: a thread that speaks the protocol over real pipes, and a real process beside it
//! that lives and dies in the worker's name.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::id::{AttemptRef, WorkerRef};
use wpool_protocol::outcome::{Identity, IsolationLevel, MeasuredBy};
use wpool_protocol::wire::{
    AttemptReport, Ending, FromWorker, Hello, InputTarget, IsolationPolicy, JobOrder, LayerReport,
    LayerState, OutputBytes, OutputHeader, ProfileSetup, Ready, Refused, RunUsage, Setup,
    StoreLayout, Stream, ToWorker, Written,
};

use crate::birth::BirthError;
use crate::driver::births::{Births, Born};
use crate::output::OutputStore;

const LAYOUT: StoreLayout = StoreLayout {
    stream_bytes: 1 << 20,
};

/// What the workers of a test do.
#[derive(Clone)]
pub(crate) struct Player {
    play: Arc<dyn Fn(&mut Stage) + Send + Sync>,
    begin: Begin,
}

/// When a worker begins to play.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// When all inputs are there.
    WithInputs,
    /// From the order on.
    AtOnce,
    /// It cannot build its sandbox.
    Never,
}

impl Player {
    /// Workers that do this with every job.
    pub(crate) fn new(play: impl Fn(&mut Stage) + Send + Sync + 'static) -> Self {
        Self {
            play: Arc::new(play),
            begin: Begin::WithInputs,
        }
    }

    /// Plays from the order on, without waiting for the inputs.
    pub(crate) fn starting_at_once(mut self) -> Self {
        self.begin = Begin::AtOnce;
        self
    }

    /// Workers that cannot build their sandbox.
    pub(crate) fn refusing() -> Self {
        Self {
            begin: Begin::Never,
            ..Self::new(|_| {})
        }
    }

    /// Workers that do what a job's command says.
    pub(crate) fn honest() -> Self {
        Self::new(|stage| {
            stage.start();
            match stage.command(0).as_str() {
                "write" => {
                    let (out, err) = (stage.command(1), stage.command(2));
                    stage.write(Stream::Stdout, out.as_bytes());
                    stage.write(Stream::Stderr, err.as_bytes());
                    stage.exit(0);
                }
                "until-stopped" => {
                    if stage
                        .hear_until(|message| matches!(message, ToWorker::Stop(_)))
                        .is_some()
                    {
                        stage.end(Ending::Stopped);
                    }
                }
                "echo-files" => {
                    stage.bring_out_inputs();
                    stage.exit(0);
                }
                "fail" => stage.exit(3),
                _ => stage.exit(0),
            }
        })
    }
}

/// Gives birth to played workers.
pub(crate) struct Cast {
    player: Player,
}

impl Cast {
    pub(crate) fn new(player: Player) -> Self {
        Self { player }
    }
}

impl Births for Cast {
    fn give_birth(&mut self, worker: WorkerRef) -> Result<Born, BirthError> {
        let (commands_read, commands) = io::pipe().unwrap();
        let (replies, replies_write) = io::pipe().unwrap();
        let store = tempfile::tempfile().unwrap();
        store.set_len(LAYOUT.len()).unwrap();
        let body = body();
        let pid = Pid::from_child(&body);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let stage = Stage {
            body,
            pidfd: pidfd.try_clone().unwrap(),
            commands: File::from(OwnedFd::from(commands_read)),
            replies: Some(File::from(OwnedFd::from(replies_write))),
            decoder: Decoder::default(),
            store: store.try_clone().unwrap(),
            order: None,
            inputs: Vec::new(),
            totals: [0, 0],
            follow: None,
        };
        let player = self.player.clone();
        std::thread::spawn(move || stage.live(&player));
        Ok(Born {
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            pidfd,
            commands: commands.into(),
            replies: replies.into(),
            store: OutputStore::new(store, LAYOUT),
            setup: Setup {
                slot: worker.slot,
                policy: IsolationPolicy::Required,
                identity: Identity::Shared,
                profiles: vec![ProfileSetup {
                    name: "default".into(),
                    mounts: vec![],
                }],
                store: LAYOUT,
                cgroup: None,
                stdio: None,
                cores: vec![],
                job_id: wpool_protocol::wire::JOB_ID,
                missing: vec![],
                directory: None,
            },
            failure: None,
            cgroup: None,
            session: None,
        })
    }
}

/// A process that lives until it is killed.
#[expect(
    clippy::disallowed_methods,
    reason = "it stands for a worker, and does nothing"
)]
fn body() -> Child {
    Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn ready() -> FromWorker {
    FromWorker::Ready(Ready {
        level: IsolationLevel::Full,
        identity: Identity::Shared,
        layers: vec![LayerReport {
            name: "pid".into(),
            state: LayerState::Active(String::new()),
        }],
    })
}

/// One worker.
pub(crate) struct Stage {
    body: Child,
    pidfd: OwnedFd,
    commands: File,
    replies: Option<File>,
    decoder: Decoder,
    store: File,
    order: Option<JobOrder>,
    inputs: Vec<Vec<u8>>,
    totals: [u64; 2],
    follow: Option<Written>,
}

impl Stage {
    fn live(mut self, player: &Player) {
        self.send(&FromWorker::Hello(Hello::ours()));
        if !matches!(self.hear(), Some(ToWorker::Hello(_)))
            || !matches!(self.hear(), Some(ToWorker::Setup(_)))
        {
            return;
        }
        if player.begin == Begin::Never {
            self.send(&FromWorker::Refused(Refused {
                layer: "user".into(),
                reason: "no user namespaces".into(),
                remedy: "allow them".into(),
            }));
            return;
        }
        self.send(&ready());
        while let Some(message) = self.hear() {
            match message {
                ToWorker::Job(order) => {
                    self.clear();
                    self.inputs = vec![Vec::new(); order.inputs.len()];
                    self.order = Some(*order);
                    if player.begin == Begin::AtOnce {
                        (player.play)(&mut self);
                    }
                }
                ToWorker::Input(input) => {
                    if let InputTarget::File(n) = input.target {
                        self.inputs[usize::from(n)].extend_from_slice(&input.bytes);
                    }
                }
                ToWorker::Start(_) if player.begin == Begin::WithInputs => (player.play)(&mut self),
                ToWorker::Retire => return,
                _ => {}
            }
        }
    }

    /// The next message; pings are answered. `None` once nobody speaks any more.
    fn hear(&mut self) -> Option<ToWorker> {
        loop {
            match self.decoder.message().unwrap() {
                Some(ToWorker::Ping(number)) => self.send(&FromWorker::Pong(number)),
                Some(ToWorker::Follow(seen)) => {
                    self.follow = Some(seen);
                    self.tell_written();
                    return Some(ToWorker::Follow(seen));
                }
                Some(message) => return Some(message),
                None => {
                    let mut buffer = [0; 4096];
                    match self.commands.read(&mut buffer) {
                        Ok(0) | Err(_) => return None,
                        Ok(len) => self.decoder.extend(&buffer[..len]),
                    }
                }
            }
        }
    }

    /// Hears until a message is the one; `None` once nobody speaks any more.
    pub(crate) fn hear_until(&mut self, is_it: impl Fn(&ToWorker) -> bool) -> Option<ToWorker> {
        loop {
            let message = self.hear()?;
            if is_it(&message) {
                return Some(message);
            }
        }
    }

    /// Goes on answering pings, and does nothing else until it is killed.
    pub(crate) fn hear_out(&mut self) {
        self.hear_until(|_| false);
    }

    /// Does nothing at all until it is killed.
    pub(crate) fn hang(&mut self) {
        use rustix::event::{PollFd, PollFlags, poll};

        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None).unwrap();
    }

    /// Dies, as if somebody had killed it.
    pub(crate) fn die(&mut self) {
        // Its pipes and its process go at the same time.
        self.replies = None;
        self.body.kill().unwrap();
    }

    pub(crate) fn until_followed(&mut self) {
        self.hear_until(|message| matches!(message, ToWorker::Follow(_)));
    }

    pub(crate) fn attempt_ref(&self) -> AttemptRef {
        self.order.as_ref().unwrap().attempt
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt_ref().attempt.0.get()
    }

    pub(crate) fn command(&self, n: usize) -> String {
        let argv = &self.order.as_ref().unwrap().argv;
        argv.get(n).cloned().unwrap_or_default()
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        if let Some(replies) = &mut self.replies {
            // The driver may have gone, or have killed us.
            drop(replies.write_all(bytes));
        }
    }

    pub(crate) fn send(&mut self, message: &FromWorker) {
        let mut bytes = Vec::new();
        frame::push(message, &mut bytes).unwrap();
        self.send_raw(&bytes);
    }

    pub(crate) fn start(&mut self) {
        self.send(&FromWorker::Started(self.attempt_ref()));
    }

    fn clear(&mut self) {
        self.totals = [0, 0];
        self.follow = None;
        self.store.write_all_at(&[0; 16], 0).unwrap();
    }

    /// Writes to the store, as a job with a limit that is far away.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let total = &mut self.totals[usize::from(stream == Stream::Stderr)];
        let limit = self.order.as_ref().unwrap().limits.output_bytes.0;
        let half = LAYOUT.half(limit);
        let until = *total + u64::try_from(bytes.len()).unwrap();
        let mut rest = bytes;
        while let Some((offset, len)) = LAYOUT.run(stream, half, *total, until) {
            let (now, later) = rest.split_at(usize::try_from(len).unwrap());
            self.store.write_all_at(now, offset).unwrap();
            rest = later;
            *total += len;
        }
        let counter = LAYOUT.counter_offset(stream);
        self.store
            .write_all_at(&total.to_le_bytes(), counter)
            .unwrap();
        self.tell_written();
    }

    pub(crate) fn written(&self) -> Written {
        Written {
            attempt: self.attempt_ref(),
            stdout: self.totals[0],
            stderr: self.totals[1],
        }
    }

    fn tell_written(&mut self) {
        let Some(seen) = self.follow else { return };
        let written = self.written();
        if written.stdout > seen.stdout || written.stderr > seen.stderr {
            self.follow = None;
            self.send(&FromWorker::Written(written));
        }
    }

    fn bring_out_inputs(&mut self) {
        let attempt = self.attempt_ref();
        let names: Vec<_> = self.order.as_ref().unwrap().inputs.clone();
        for (header, bytes) in names.into_iter().zip(std::mem::take(&mut self.inputs)) {
            assert_eq!(header.size, u64::try_from(bytes.len()).unwrap());
            self.send(&FromWorker::Output(OutputHeader {
                attempt,
                name: header.name.as_str().as_bytes().to_vec(),
                size: Ok(header.size),
            }));
            for chunk in bytes.chunks(100_000) {
                self.send(&FromWorker::OutputBytes(OutputBytes {
                    attempt,
                    bytes: chunk.to_vec(),
                }));
            }
        }
    }

    pub(crate) fn exit(&mut self, code: u8) {
        self.end(Ending::Exited(code));
    }

    pub(crate) fn end(&mut self, ending: Ending) {
        let report = AttemptReport {
            attempt: self.attempt_ref(),
            ending,
            limits_hit: vec![],
            usage: RunUsage {
                wall_us: 1,
                cpu_user_us: 1,
                cpu_system_us: 1,
                memory_peak_bytes: 1,
                processes_peak: 1,
                measured_by: MeasuredBy::Rusage,
            },
            written: self.written(),
        };
        self.send(&FromWorker::Ended(Box::new(report)));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The driver reaps it by its pidfd; a kill that comes too late is no fault.
        drop(self.body.kill());
    }
}
