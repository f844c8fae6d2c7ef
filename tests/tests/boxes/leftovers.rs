//! What is left of a job when it has ended: nothing, for the next job and for the host.

use anyhow::ensure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wpool::birth::ids::{IdentityPolicy, Ids};
use wpool::birth::{BinarySource, Newborn, Nursery, NurseryPlan};
use wpool_protocol::id::{Generation, SlotId, WorkerRef};
use wpool_protocol::limits::LimitName;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::{Ending, IsolationPolicy, Written};
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[
    test!(background_processes_end_with_their_job),
    test!(a_fork_bomb_ends_with_nothing_left, "python3"),
    test!(a_fork_chain_ends_with_nothing_left, "python3"),
    test!(
        a_tree_whose_init_is_lost_is_dead_when_its_end_is_told,
        "python3"
    ),
    test!(a_newborn_that_is_stopped_dies_with_its_supervisor),
    test!(files_of_a_job_are_gone_for_the_next),
    test!(a_full_disk_is_an_errno_and_is_told),
    test!(ipc_objects_of_a_job_are_gone_for_the_next, "python3"),
    test!(ports_of_a_job_are_free_for_the_next, "python3"),
    test!(a_worker_does_not_grow),
];

/// Only the worker itself is there.
fn alone(rig: &Rig) -> anyhow::Result<()> {
    // The init of the last job goes while its namespaces are dismantled: that is an event of the kernel's.
    let deadline = std::time::Instant::now() + wpool_tests::rig::PATIENCE;
    loop {
        let processes = rig.processes()?;
        if processes == [rig.pid] {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "left: {processes:?}");
        std::thread::yield_now();
    }
}

fn background_processes_end_with_their_job() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let script = "(setsid sh -c 'trap \"\" TERM HUP; echo in background; sleep 60' &) ; sleep 0.2; echo done";
    let ran = rig.run(&Job::shell(script))?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(ran.stdout == "in background\ndone\n", "{ran:?}");
    alone(&rig)
}

fn a_fork_bomb_ends_with_nothing_left() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass";
    let job = Job::python(bomb).limits(|limits| limits.timeout_ms = Some(Millis(700)));
    let ran = rig.run(&job)?;
    let ended = matches!(
        ran.report.ending,
        Ending::TimedOut(None)
            | Ending::Limit {
                limit: LimitName::Cpu,
                ..
            }
    );
    ensure!(ended, "{ran:?}");
    ensure!(
        ran.report.limits_hit.contains(&LimitName::Processes),
        "{ran:?}"
    );
    ensure!(ran.report.usage.processes_peak <= 64, "{ran:?}");
    alone(&rig)
}

fn a_fork_chain_ends_with_nothing_left() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let chain = "import os\nwhile True:\n  if os.fork(): os._exit(0)\n  os.setsid()";
    let job = Job::shell(&format!("python3 -c '{chain}'; sleep 60"))
        .limits(|limits| limits.timeout_ms = Some(Millis(700)));
    let ran = rig.run(&job)?;
    let ended = matches!(
        ran.report.ending,
        Ending::TimedOut(None)
            | Ending::Limit {
                limit: LimitName::Cpu,
                ..
            }
    );
    ensure!(ended, "{ran:?}");
    alone(&rig)
}

fn a_tree_whose_init_is_lost_is_dead_when_its_end_is_told() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    // It holds no pipe by which its end could be told, and enough memory for its end to take a while.
    let program = "import os, time\nheld = os.dup(2)\nos.close(0); os.close(1); os.close(2)\n\
        for _ in range(20):\n\
        \x20 if os.fork() == 0:\n\
        \x20   x = bytearray(16 << 20); os.write(held, b'.'); os.close(held); time.sleep(60)\n\
        os.close(held)\ntime.sleep(60)";
    let job = Job::python(program).limits(|limits| limits.memory_bytes = Some(ByteSize::gib(2)));
    let attempt = rig.start(&job)?;
    let mut written = Written {
        attempt,
        stdout: 0,
        stderr: 0,
    };
    while written.stderr < 20 {
        written = rig.written_more(written)?;
    }
    let processes = rig.processes()?;
    let [_, init, tree @ ..] = processes.as_slice() else {
        anyhow::bail!("{processes:?}");
    };
    ensure!(tree.len() == 21, "{processes:?}");
    let init = rustix::process::Pid::from_raw(i32::try_from(*init)?);
    rustix::process::kill_process(
        init.ok_or_else(|| anyhow::anyhow!("no init"))?,
        rustix::process::Signal::KILL,
    )?;
    let ran = rig.finish(&job)?;
    let ending = &ran.report.ending;
    ensure!(matches!(ending, Ending::BoxFailed { .. }), "{ran:?}");
    for pid in tree {
        let alive = std::path::Path::new(&format!("/proc/{pid}")).exists();
        ensure!(!alive, "{pid} of {processes:?} is still there");
    }
    Ok(())
}

fn a_newborn_that_is_stopped_dies_with_its_supervisor() -> anyhow::Result<()> {
    let nursery = Nursery::new(NurseryPlan {
        policy: IsolationPolicy::Required,
        profiles: Vec::new(),
        stream_bytes: 0,
        cores: Vec::new(),
        binary: BinarySource::SealedCopy,
        cgroup: None,
        ids: Ids::claim(IdentityPolicy::Quick)?,
    })?;
    let worker = WorkerRef {
        slot: SlotId(0),
        generation: Generation(1),
    };
    // A death signal comes with the end of the thread that gave birth. Nothing has been said to the newborn, and
    // its pipes stay open: it cannot find out by itself.
    let born = std::thread::spawn(move || -> anyhow::Result<Newborn> {
        let born = nursery.bear(worker)?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(born.pid)?)
            .ok_or_else(|| anyhow::anyhow!("no pid"))?;
        let has_begun = || {
            let name = std::fs::read(format!("/proc/{}/cmdline", born.pid));
            name.is_ok_and(|name| name.starts_with(b"wpool\0"))
        };
        while !has_begun() {}
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        Ok(born)
    });
    let born = born
        .join()
        .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    let mut died = [PollFd::new(&born.pidfd, PollFlags::IN)];
    let patience = Timespec::try_from(wpool_tests::rig::PATIENCE)?;
    let is_dead = poll(&mut died, Some(&patience))? > 0;
    let kill = rustix::process::Signal::KILL;
    rustix::process::pidfd_send_signal(&born.pidfd, kill)?;
    ensure!(is_dead, "it has survived its supervisor");
    Ok(())
}

fn files_of_a_job_are_gone_for_the_next() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let ran = rig.run(&Job::shell(
        "touch /box/a /tmp/b /dev/shm/c; mkdir -m 0 /tmp/d; ls /box /tmp /dev/shm | grep -c .",
    ))?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    let ran = rig.run(&Job::shell("find /box /tmp /dev/shm -mindepth 1"))?;
    ensure!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    Ok(())
}

fn a_full_disk_is_an_errno_and_is_told() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("cat /dev/zero > /tmp/big; cat /dev/zero > /box/more; echo went on")
        .limits(|limits| limits.disk_bytes = Some(ByteSize::mib(4)));
    let ran = rig.run(&job)?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(
        ran.stdout == "went on\n" && ran.stderr.contains("No space left"),
        "{ran:?}"
    );
    ensure!(ran.report.limits_hit == [LimitName::Disk], "{ran:?}");
    Ok(())
}

fn ipc_objects_of_a_job_are_gone_for_the_next() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let make = "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0left')\n\
        import os\nos.close(os.open('/dev/mqueue/left', os.O_CREAT | os.O_RDWR))";
    let ran = rig.run(&Job::python(make))?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    let ran = rig.run(&Job::shell(
        "ls /dev/mqueue; grep left /proc/net/unix; ipcs -q | grep 0x; true",
    ))?;
    ensure!(ran.stdout.is_empty(), "{ran:?}");
    Ok(())
}

fn ports_of_a_job_are_free_for_the_next() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    // Leaves a connection in TIME_WAIT behind: in a shared network namespace the next bind would fail.
    let program = "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 8080))\ns.listen()\n\
        c = socket.create_connection(('127.0.0.1', 8080))\na, _ = s.accept()\na.close()\nc.recv(1)\nc.close()\nprint('ok')";
    for _ in 0..3 {
        let ran = rig.run(&Job::python(program))?;
        ensure!(ran.stdout == "ok\n", "{ran:?}");
    }
    Ok(())
}

fn a_worker_does_not_grow() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let descriptors =
        |rig: &Rig| anyhow::Ok(std::fs::read_dir(format!("/proc/{}/fd", rig.pid))?.count());
    let job = Job::shell("head -c 3000000 /dev/zero; touch a b c").output("*");
    for _ in 0..5 {
        rig.run(&job)?;
    }
    alone(&rig)?;
    let before = (descriptors(&rig)?, rig.resident_bytes()?);
    for _ in 0..50 {
        rig.run(&job)?;
    }
    alone(&rig)?;
    let after = (descriptors(&rig)?, rig.resident_bytes()?);
    ensure!(
        after.0 == before.0,
        "descriptors: {before:?}, then {after:?}"
    );
    ensure!(
        after.1 < before.1 + (1 << 20),
        "memory: {before:?}, then {after:?}"
    );
    Ok(())
}
