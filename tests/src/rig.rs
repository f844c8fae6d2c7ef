//! A worker on a bench: a supervisor so small that a test can hold it, around a real worker in its real sandbox.
//!
//! The test program itself is what the worker runs: its `main` must hand `worker` on to
//! [`wpool_worker::main`], as the `wpool` binary does.
//!
//! # Invariants
//!
//! - Everything but the supervisor is real: kernel, namespaces, pipes, processes.
//! - A worker that does not answer within [`PATIENCE`] fails the test; the limit is no claim of speed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wpool::birth::ids::{IdentityPolicy, Ids};
use wpool::birth::{BinarySource, Newborn, Nursery, NurseryPlan, ProfilePlan};
use wpool_protocol::frame::{self, Decoder};
use wpool_protocol::id::{AttemptNumber, AttemptRef, Generation, JobId, SlotId, WorkerRef};
use wpool_protocol::limits::{Limits, LimitsRequest};
use wpool_protocol::outcome::{IsolationLevel, OutputError};
use wpool_protocol::wire::{
    AttemptReport, FromWorker, Hello, InputBytes, InputHeader, InputTarget, IsolationPolicy,
    JobOrder, Ready, Stdio, Stream, ToWorker, Written,
};

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Room for one stream.
const STREAM_BYTES: u64 = 1 << 20;

/// A worker on a bench.
#[derive(Debug)]
pub struct Rig {
    /// The worker's pid.
    pub pid: u32,
    /// What stands around its jobs.
    pub ready: Ready,
    born: Newborn,
    commands: File,
    replies: File,
    decoder: Decoder,
    jobs: u64,
}

/// A job for a rig.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its limits.
    pub limits: LimitsRequest,
    /// What it reads.
    pub stdin: Vec<u8>,
    /// Files to lay into its box: name, mode, content.
    pub inputs: Vec<(String, u32, Vec<u8>)>,
    /// Files to bring out.
    pub outputs: Vec<String>,
}

/// A file that was asked for: its name, and its content or why there is none.
pub type BroughtOut = (Vec<u8>, Result<Vec<u8>, OutputError>);

/// How a job went.
#[derive(Debug)]
pub struct Ran {
    /// What the worker says.
    pub report: AttemptReport,
    /// What is kept of descriptor 1.
    pub stdout: String,
    /// What is kept of descriptor 2.
    pub stderr: String,
    /// What came out, in the order it came.
    pub files: Vec<BroughtOut>,
}

impl Job {
    /// A job that runs this program.
    pub fn new(argv: &[&str]) -> Self {
        Self {
            argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// A job that runs a shell script.
    pub fn shell(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// A job that runs a Python program.
    pub fn python(program: &str) -> Self {
        Self::new(&["python3", "-c", program])
    }

    /// The same with these limits.
    #[must_use]
    pub fn limits(mut self, set: impl FnOnce(&mut LimitsRequest)) -> Self {
        set(&mut self.limits);
        self
    }

    /// The same with a file in its box.
    #[must_use]
    pub fn input(mut self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.inputs.push((name.to_owned(), mode, content.to_vec()));
        self
    }

    /// The same with a file to bring out.
    #[must_use]
    pub fn output(mut self, pattern: &str) -> Self {
        self.outputs.push(pattern.to_owned());
        self
    }
}

impl Rig {
    /// A worker whose jobs see nothing beside the system directories.
    pub fn new() -> anyhow::Result<Self> {
        Self::with_mounts(Vec::new())
    }

    /// A worker whose jobs see these host paths, too.
    pub fn with_mounts(mounts: Vec<(PathBuf, String)>) -> anyhow::Result<Self> {
        Self::build(mounts, Vec::new(), 0)
    }

    /// A worker whose jobs may use these cores.
    pub fn with_cores(cores: Vec<u16>) -> anyhow::Result<Self> {
        Self::build(Vec::new(), cores, 0)
    }

    /// The worker of this slot, whose jobs see these host paths, too; what a test's own worker makes of the number is
    /// the test's.
    pub fn in_slot(slot: u16, mounts: Vec<(PathBuf, String)>) -> anyhow::Result<Self> {
        Self::build(mounts, Vec::new(), slot)
    }

    fn build(mounts: Vec<(PathBuf, String)>, cores: Vec<u16>, slot: u16) -> anyhow::Result<Self> {
        let nursery = Nursery::new(NurseryPlan {
            policy: IsolationPolicy::Required,
            profiles: vec![ProfilePlan {
                name: "default".to_owned(),
                mounts,
            }],
            stream_bytes: STREAM_BYTES,
            cores,
            binary: BinarySource::SealedCopy,
            cgroup: None,
            ids: Ids::claim(IdentityPolicy::Quick)?,
        })?;
        let born = nursery.bear(WorkerRef {
            slot: SlotId(slot),
            generation: Generation(1),
        })?;
        let mut rig = Self {
            pid: born.pid,
            ready: Ready {
                level: IsolationLevel::default(),
                identity: nursery.identity(),
                layers: Vec::new(),
            },
            commands: File::from(born.commands.try_clone()?),
            replies: File::from(born.replies.try_clone()?),
            decoder: Decoder::of_replies(),
            jobs: 0,
            born,
        };
        rig.say(&ToWorker::Hello(Hello::ours()))?;
        rig.say(&ToWorker::Setup(Box::new(rig.born.setup.clone())))?;
        let greeting = rig.hear();
        if greeting.is_err()
            && let Some(reason) = rig.born.failure.read()
        {
            anyhow::bail!(reason);
        }
        anyhow::ensure!(matches!(greeting?, FromWorker::Hello(hello) if hello.check().is_ok()));
        match rig.hear()? {
            FromWorker::Ready(ready) => rig.ready = ready,
            other => anyhow::bail!("the worker is not ready: {other:?}"),
        }
        Ok(rig)
    }

    /// Says something to the worker.
    pub fn say(&mut self, message: &ToWorker) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        frame::push(message, &mut bytes)?;
        Ok(self.commands.write_all(&bytes)?)
    }

    /// Waits for what the worker says next.
    pub fn hear(&mut self) -> anyhow::Result<FromWorker> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(message) = self.decoder.message()? {
                return Ok(message);
            }
            wait_readable(self.replies.as_fd())?;
            let len = self.replies.read(&mut buffer)?;
            anyhow::ensure!(len > 0, "the worker is gone");
            self.decoder.extend(&buffer[..len]);
        }
    }

    /// Sends a job and waits until its program runs; gives its name.
    pub fn start(&mut self, job: &Job) -> anyhow::Result<AttemptRef> {
        let attempt = self.send(job)?;
        match self.hear()? {
            FromWorker::Started(started) if started == attempt => Ok(attempt),
            other => anyhow::bail!("the job did not start: {other:?}"),
        }
    }

    /// Sends a job.
    pub fn send(&mut self, job: &Job) -> anyhow::Result<AttemptRef> {
        self.jobs += 1;
        let attempt = AttemptRef {
            job: JobId(self.jobs),
            attempt: AttemptNumber::FIRST,
        };
        let inputs = job.inputs.iter().map(|(name, mode, content)| {
            Ok(InputHeader {
                name: name.parse()?,
                mode: *mode,
                size: content.len().try_into()?,
            })
        });
        self.say(&ToWorker::Job(Box::new(JobOrder {
            attempt,
            profile: 0,
            argv: job.argv.clone(),
            env: vec![
                ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
                ("HOME".to_owned(), "/box".to_owned()),
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ],
            limits: job.limits.resolve(&Limits::DEFAULT, &Limits::CEILING)?,
            stdio: Stdio::Captured {
                stdin_bytes: job.stdin.len().try_into()?,
            },
            inputs: inputs.collect::<anyhow::Result<_>>()?,
            outputs: job.outputs.clone(),
        })))?;
        self.feed(InputTarget::Stdin, &job.stdin)?;
        for (index, (_, _, content)) in (0u16..).zip(&job.inputs) {
            self.feed(InputTarget::File(index), content)?;
        }
        self.say(&ToWorker::Start(attempt))?;
        Ok(attempt)
    }

    /// Waits until the job has written more than that, and says how much.
    pub fn written_more(&mut self, than: Written) -> anyhow::Result<Written> {
        self.say(&ToWorker::Follow(than))?;
        match self.hear()? {
            FromWorker::Written(written) => Ok(written),
            other => anyhow::bail!("the job has ended: {other:?}"),
        }
    }

    fn feed(&mut self, target: InputTarget, content: &[u8]) -> anyhow::Result<()> {
        for bytes in content.chunks(wpool_protocol::wire::CHUNK_MAX) {
            let bytes = bytes.to_vec();
            self.say(&ToWorker::Input(InputBytes { target, bytes }))?;
        }
        Ok(())
    }

    /// Runs a job to its end.
    pub fn run(&mut self, job: &Job) -> anyhow::Result<Ran> {
        self.send(job)?;
        self.finish(job)
    }

    /// Waits for the end of the job that was sent last.
    pub fn finish(&mut self, job: &Job) -> anyhow::Result<Ran> {
        let mut files: Vec<BroughtOut> = Vec::new();
        let report = loop {
            match self.hear()? {
                FromWorker::Started(_) => {}
                FromWorker::Output(header) => {
                    files.push((header.name, header.size.map(|_| Vec::new())));
                }
                FromWorker::OutputBytes(output) => match files.last_mut() {
                    Some((_, Ok(content))) => content.extend_from_slice(&output.bytes),
                    other => anyhow::bail!("bytes for {other:?}"),
                },
                FromWorker::Ended(report) => break *report,
                other => anyhow::bail!("unexpected: {other:?}"),
            }
        };
        let limits = job.limits.resolve(&Limits::DEFAULT, &Limits::CEILING)?;
        let kept = |stream, total| {
            let kept = self.born.store.kept(stream, limits.output_bytes.0, total)?;
            anyhow::Ok(String::from_utf8_lossy(&kept.bytes).into_owned())
        };
        Ok(Ran {
            stdout: kept(Stream::Stdout, report.written.stdout)?,
            stderr: kept(Stream::Stderr, report.written.stderr)?,
            report,
            files,
        })
    }

    /// Pids of all processes in the worker's pid namespace and below it, itself included.
    pub fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let mut tree = vec![self.pid];
        let mut at = 0;
        while let Some(pid) = tree.get(at) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            for child in children.unwrap_or_default().split_whitespace() {
                tree.push(child.parse()?);
            }
            at += 1;
        }
        Ok(tree)
    }

    /// Memory that the worker itself holds, bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid))?;
        let pages: u64 = statm.split_whitespace().nth(1).unwrap_or("0").parse()?;
        Ok(pages * 4096)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let kill = rustix::process::Signal::KILL;
        if rustix::process::pidfd_send_signal(&self.born.pidfd, kill).is_ok() {
            let id = rustix::process::WaitId::PidFd(self.born.pidfd.as_fd());
            let reaped = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
            assert!(reaped.is_ok() || std::thread::panicking(), "{reaped:?}");
        }
    }
}

fn wait_readable(fd: BorrowedFd<'_>) -> anyhow::Result<()> {
    let timeout = PollTimeout::try_from(PATIENCE)?;
    let ready = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout)?;
    anyhow::ensure!(ready > 0, "the worker has said nothing for {PATIENCE:?}");
    Ok(())
}
