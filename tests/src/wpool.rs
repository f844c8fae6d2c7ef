//! The `wpool` program from the outside: commands as a user types them, and a daemon of one's own.
//!
//! # Invariants
//!
//! - The program is the one that this checkout builds; `WPOOL_BIN` names another (what a package has installed).
//! - A daemon is waited for by its own word (`/readyz`), and when it is dropped it is killed, and nothing of it may be left.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cgroup::Cgroup;

/// How long a test waits for anything; no claim of speed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Where the program is; built first, if it is this checkout's.
///
/// # Panics
///
/// If it cannot be built: then no test of it means anything.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("WPOOL_BIN") {
        Some(path) => path.into(),
        None => build().unwrap_or_else(|error| panic!("wpool cannot be built: {error:?}")),
    })
}

fn build() -> anyhow::Result<PathBuf> {
    // target/PROFILE/deps/this-test
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("no profile folder")?;
    let mut build = program(env!("CARGO"));
    // What `cargo test --workspace` builds, so that there it costs nothing: a build of the package alone chooses
    // other features of its dependencies, and each of the two would undo the other.
    build.args([
        "test",
        "--offline",
        "--workspace",
        "--test",
        "control",
        "--no-run",
    ]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(profile.join("wpool"))
}

/// A program of the host's.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start programs as users do"
)]
pub fn program(path: impl AsRef<OsStr>) -> Command {
    Command::new(path)
}

/// `wpool` with nothing of this process' environment but what every shell has.
pub fn wpool<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = program(binary());
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::null());
    command
}

/// A line of shell that goes on when [`Daemon::open_gate`] is called; in jobs of a daemon with a gate.
pub const GATE: &str = "while [ ! -e /gate/open ]; do sleep 0.02; done";

/// How a command went.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; 128 + n for signal n.
    pub code: i32,
    /// Descriptor 1.
    pub stdout: String,
    /// Descriptor 2.
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;

        let code = output.status.code();
        Self {
            code: code.unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// What was written to descriptor 1, as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("{self:?}"))
    }
}

/// Runs `wpool` with these arguments to its end.
pub fn run<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> anyhow::Result<Said> {
    Ok(wpool(arguments).output()?.into())
}

/// A daemon of the test's own.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    directory: tempfile::TempDir,
    said: PathBuf,
    /// What it is to divide, where there is anything.
    cgroup: Option<Cgroup>,
}

impl Daemon {
    /// Starts a daemon with so many workers.
    pub fn start(workers: u16) -> anyhow::Result<Self> {
        Self::start_with(workers, "")
    }

    /// Starts a daemon with this config, too.
    pub fn start_with(workers: u16, config: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("wpool.toml"), config)?;
        Self::start_in(directory, workers)
    }

    /// Starts a daemon whose jobs see a gate, which is shut: for tests of what happens while a job runs.
    pub fn start_gated(workers: u16, config: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let gate = directory.path().join("gate");
        fs::create_dir(&gate)?;
        let mount = format!("{}:/gate", gate.display());
        let config = format!("{config}\n[profile.default]\nmounts = [{mount:?}]\n");
        fs::write(directory.path().join("wpool.toml"), config)?;
        Self::start_in(directory, workers)
    }

    /// Lets every job go on that waits at the [`GATE`], now and later.
    pub fn open_gate(&self) -> anyhow::Result<()> {
        fs::write(self.directory.path().join("gate/open"), "")?;
        Ok(())
    }

    fn start_in(directory: tempfile::TempDir, workers: u16) -> anyhow::Result<Self> {
        let said = directory.path().join("said");
        let cgroup = Cgroup::new();
        let process = inside(cgroup.as_ref(), Self::command(directory.path(), workers))
            .stderr(fs::File::create(&said)?)
            .spawn()?;
        let mut daemon = Self {
            process,
            directory,
            said,
            cgroup,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts a daemon with one worker that logs there.
    pub fn start_with_log(log: Stdio) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("wpool.toml"), "")?;
        let process = Self::command(directory.path(), 1).stderr(log).spawn()?;
        let mut daemon = Self {
            process,
            said: directory.path().join("wpool.toml"),
            directory,
            cgroup: None,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts it again, in the same place, after it has exited.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        // systemd makes a service's cgroup anew, too.
        drop(self.cgroup.take());
        self.cgroup = Cgroup::new();
        let command = Self::command(self.directory.path(), 1);
        self.process = inside(self.cgroup.as_ref(), command)
            .stderr(fs::File::create(&self.said)?)
            .spawn()?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        self.wait_until("it is ready", |daemon| {
            if let Some(status) = daemon.process.try_wait()? {
                anyhow::bail!("the daemon exited with {status}: {}", daemon.said()?);
            }
            Ok(daemon
                .get("/readyz")
                .is_ok_and(|answer| answer.status == 200))
        })
    }

    /// The command that starts a daemon in `directory`.
    pub fn command(directory: &Path, workers: u16) -> Command {
        let mut command = wpool(["serve", "--config"]);
        command
            .arg(directory.join("wpool.toml"))
            .arg("--socket")
            .arg(directory.join("control.sock"))
            .args(["--workers", &workers.to_string()])
            .stdout(Stdio::null());
        command
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The cgroup that it divides, where there is one.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_ref().map(Cgroup::directory)
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(-1))
    }

    /// What it has logged.
    pub fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.said)?)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Waits until it has exited, and gives its exit code (128 + n for signal n).
    pub fn wait(&mut self) -> anyhow::Result<i32> {
        use std::os::unix::process::ExitStatusExt as _;

        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon does not exit: {}",
                self.said()?
            );
            pause();
        }
    }

    /// Runs a client command against it.
    pub fn wpool<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> anyhow::Result<Said> {
        Ok(self.client(arguments).output()?.into())
    }

    /// A client command against it.
    pub fn client<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = wpool(arguments);
        command.env("WPOOL_SOCKET", self.socket());
        command
    }

    /// A new connection to it.
    pub fn connect(&self) -> anyhow::Result<UnixStream> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask("GET", path, None)
    }

    /// `POST path` with this body.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask("POST", path, Some(body.to_string().as_bytes()))
    }

    /// A request with a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: Option<&[u8]>) -> anyhow::Result<Answer> {
        let mut stream = self.connect()?;
        let body = body.unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: wpool\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        // A daemon may answer and close before it has read a body that it refuses.
        drop(stream.write_all(body));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Answer::parse(&answer)
    }

    /// Its status.
    pub fn status(&self) -> anyhow::Result<Value> {
        self.get("/v1/status")?.json()
    }

    /// Submits a job and waits for its outcome.
    pub fn outcome_of(&self, job: &Value) -> anyhow::Result<Value> {
        let answer = self.post("/v1/jobs?wait=60s", job)?;
        ensure!(answer.status == 200, "{answer:?}");
        answer.json()
    }

    /// The pids of its workers, by slot, as its status tells them.
    pub fn workers(&self) -> anyhow::Result<Vec<Pid>> {
        let status = self.status()?;
        let workers = status["workers"].as_array().context("no workers")?;
        let pids = workers.iter().filter_map(|worker| worker["pid"].as_i64());
        Ok(pids
            .filter_map(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw)
            .collect())
    }

    /// Waits until `holds`.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self)? {
            ensure!(
                Instant::now() < deadline,
                "not so after {PATIENCE:?}: {what}; {}",
                self.said()?
            );
            pause();
        }
        Ok(())
    }

    /// All processes below the daemon.
    pub fn descendants(&self) -> anyhow::Result<Vec<u32>> {
        descendants(self.process.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let below = self.descendants().unwrap_or_default();
        // It may have exited already.
        drop(self.process.kill());
        drop(self.process.wait());
        let left = below
            .iter()
            .filter(|pid| is_alive(**pid))
            .collect::<Vec<_>>();
        let gone = wait_for(|| left.iter().all(|pid| !is_alive(**pid)));
        assert!(gone || std::thread::panicking(), "left behind: {left:?}");
    }
}

/// The same command, run inside a cgroup: by a shell that enters it and becomes the command.
fn inside(cgroup: Option<&Cgroup>, command: Command) -> Command {
    let Some(cgroup) = cgroup else {
        return command;
    };
    let mut shell = program("sh");
    shell
        .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
        .arg(cgroup.directory())
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (name, value) in command.get_envs() {
        shell.envs(value.map(|value| (name, value)));
    }
    shell
}

/// All processes below `pid`.
pub fn descendants(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut tree = children(pid)?;
    let mut at = 0;
    while let Some(&pid) = tree.get(at) {
        tree.extend(children(pid)?);
        at += 1;
    }
    Ok(tree)
}

/// The children of all threads of `pid`; none if it is gone.
pub fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            found.push(child.parse()?);
        }
    }
    Ok(found)
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.starts_with(['Z', 'X']))
    })
}

/// Whether something becomes true in time.
pub fn wait_for(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
    true
}

/// Lets a moment pass between two looks at something that tells nobody when it changes.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// Memory that a process holds, bytes.
pub fn resident_bytes(pid: Pid) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? << 10)
}

/// Runs a command to its end with these bytes on its standard input.
pub fn feed(mut command: Command, stdin: &[u8]) -> anyhow::Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().context("its input is a pipe")?;
    std::thread::scope(|scope| {
        // Whoever does not read its input to the end gets no complaint for it.
        scope.spawn(move || drop(pipe.write_all(stdin)));
        Ok(child.wait_with_output()?.into())
    })
}

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body, without its transfer coding.
    pub body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .with_context(|| format!("no answer: {text:?}"))?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        Ok(Self {
            status,
            body: if chunked {
                unchunk(body)?
            } else {
                body.to_owned()
            },
            head: head.to_owned(),
        })
    }

    /// The body, as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }
}

fn unchunk(mut body: &str) -> anyhow::Result<String> {
    let mut whole = String::new();
    while let Some((len, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(len.trim(), 16)?;
        let (chunk, rest) = rest.split_at_checked(len).context("a chunk is cut")?;
        whole.push_str(chunk);
        body = rest.trim_start_matches("\r\n");
        if len == 0 {
            break;
        }
    }
    Ok(whole)
}
