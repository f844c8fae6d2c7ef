//! What a job can have of what the kernel counts by user: whatever another left there is missing.
//!
//! Nothing in `/proc` tells these counts. A job takes of each as much as there is, and says how much that was.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wpool_tests::wpool::Daemon;

use super::census::{Bound, Census};

/// As many of each as a job may have, or as are worth counting.
const PROBE: &str = "\
import ctypes, fcntl, json, os, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    longs = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    made = libc.syscall(ctypes.c_long(number), *longs)
    if made < 0: raise OSError
    return made
def lots(most, make):
    made = []
    try:
        for n in range(most): made.append(make(n))
    except OSError: pass
    return len(made)
room = {}
small = struct.pack('8q', 0, 1, 16, 0, 0, 0, 0, 0)
room['message queues'] = lots(200, lambda n: os.close(call(240, b'q%d' % n, os.O_CREAT | os.O_RDWR, 0o600, small)))
room['inotify instances'] = lots(100, lambda _: call(294, 0)); os.closerange(3, 1000)
watch = call(294, 0)
room['inotify watches'] = lots(200, lambda n: (os.mkdir(f'/tmp/{n}'), call(254, watch, b'/tmp/%d' % n, 0xfff))); os.close(watch)
def pipe(_):
    fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)
room['pipes of a MiB'] = lots(60, pipe); os.closerange(3, 1000)
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
def queue(_):
    if libc.sigqueue(os.getpid(), 40, 0): raise OSError
room['pending signals'] = lots(2_000, queue)
timer = ctypes.c_int()
room['timers'] = lots(100, lambda _: call(222, 1, 0, ctypes.byref(timer)))
pairs = [socket.socketpair() for _ in range(20)]
room['descriptors in flight'] = lots(100, lambda n: socket.send_fds(pairs[n % 20][0], [b'x'], [0]))
os.closerange(3, 1000)
def process(_):
    if os.fork() == 0: signal.pause()
room['processes'] = lots(60, process)
files = os.statvfs('/tmp')
room['files'] = files.f_ffree; room['disk, MiB'] = files.f_bavail * files.f_bsize >> 20
room['open files'] = lots(300, lambda _: os.dup(0))
os.write(1, json.dumps(room).encode()); os._exit(0)
";

/// More than there are workers: both are asked.
const PROBES: usize = 4;

/// Counts what jobs can have, on the worker where that is least.
pub(crate) fn count(daemon: &Daemon, census: &mut Census) -> anyhow::Result<()> {
    let job = json!({"command": ["python3", "-S", "-c", PROBE], "attempts_max": 100});
    let mut least: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    std::thread::scope(|scope| {
        let probes: Vec<_> = (0..PROBES)
            .map(|_| scope.spawn(|| daemon.outcome_of(&job)))
            .collect();
        for probe in probes {
            let outcome = probe
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            ensure!(outcome["state"] == "succeeded", "{outcome}");
            let said: Value = serde_json::from_str(outcome["stdout"].as_str().context("no text")?)?;
            for (name, value) in said.as_object().context("no counts")? {
                let value = value.as_u64().context("no count")?;
                let least = least.entry(name.clone()).or_insert(value);
                *least = value.min(*least);
            }
        }
        anyhow::Ok(())
    })?;
    for (name, value) in least {
        census.add(format!("room of a job: {name}"), value, Bound::NoLess);
    }
    Ok(())
}
