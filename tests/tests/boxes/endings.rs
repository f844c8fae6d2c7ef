//! How a job ends is told as it was: codes, signals, limits, and whose fault it is.

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wpool_protocol::limits::LimitName;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::{Ending, InGrace, ToWorker};
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[
    test!(an_exit_code_is_told),
    test!(a_signal_is_told, "python3"),
    test!(a_missing_program_is_told),
    test!(the_wall_time_ends_a_job),
    test!(grace_lets_a_job_clean_up),
    test!(cpu_time_of_the_tree_is_limited),
    test!(memory_of_the_tree_is_limited, "python3"),
    test!(an_idle_job_is_ended),
    test!(a_file_may_not_grow_above_its_limit),
    test!(a_stopped_job_is_stopped),
    test!(an_init_killed_from_outside_ends_the_job),
    test!(an_init_killed_at_any_moment_costs_its_job_alone),
    test!(a_job_stopped_at_any_moment_is_told_once),
];

fn an_exit_code_is_told() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    for code in [0, 3, 137, 255] {
        let ran = rig.run(&Job::shell(&format!("exit {code}")))?;
        ensure!(ran.report.ending == Ending::Exited(code), "{ran:?}");
    }
    Ok(())
}

fn a_signal_is_told() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    for signal in [
        Signal::SIGABRT,
        Signal::SIGTERM,
        Signal::SIGSEGV,
        Signal::SIGKILL,
    ] {
        let number = signal as i32;
        let ran = rig.run(&Job::shell(&format!("kill -{number} $$")))?;
        ensure!(
            ran.report.ending == Ending::Signaled(number.try_into()?),
            "{ran:?}"
        );
    }
    let ran = rig.run(&Job::python("import os; os.abort()"))?;
    ensure!(ran.report.ending == Ending::Signaled(6), "{ran:?}");
    Ok(())
}

fn a_missing_program_is_told() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    for program in ["no-such-program", "/no/such", "./nothing"] {
        let ran = rig.run(&Job::new(&[program]))?;
        ensure!(ran.report.ending == Ending::NotFound, "{ran:?}");
    }
    let ran = rig.run(&Job::new(&["/etc/passwd"]))?;
    ensure!(
        ran.report.ending == Ending::NotExecutable(nix::libc::EACCES),
        "{ran:?}"
    );
    let job = Job::new(&["./tool"]).input("tool", 0o755, b"#!/no/such/interpreter\n");
    let ran = rig.run(&job)?;
    let lacks = "/no/such/interpreter".to_owned();
    ensure!(ran.report.ending == Ending::Lacking(lacks), "{ran:?}");
    let job = Job::new(&["./tool"]).input("tool", 0o755, b"no program at all");
    let ran = rig.run(&job)?;
    ensure!(
        ran.report.ending == Ending::NotExecutable(nix::libc::ENOEXEC),
        "{ran:?}"
    );
    Ok(())
}

fn the_wall_time_ends_a_job() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("trap '' TERM; echo begun; sleep 60 & sleep 60")
        .limits(|limits| limits.timeout_ms = Some(Millis(300)));
    let ran = rig.run(&job)?;
    ensure!(ran.report.ending == Ending::TimedOut(None), "{ran:?}");
    ensure!(ran.stdout == "begun\n", "{ran:?}");
    ensure!(ran.report.usage.wall_us >= 300_000, "{ran:?}");
    Ok(())
}

fn grace_lets_a_job_clean_up() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("trap 'echo bye; exit 0' TERM; echo begun; while :; do sleep 0.05; done")
        .limits(|limits| {
            limits.timeout_ms = Some(Millis(300));
            limits.grace_ms = Some(Millis(20_000));
        });
    let ran = rig.run(&job)?;
    let by_itself = Ending::TimedOut(Some(InGrace::Exited(0)));
    ensure!(ran.report.ending == by_itself, "{ran:?}");
    ensure!(ran.stdout == "begun\nbye\n", "{ran:?}");
    Ok(())
}

fn cpu_time_of_the_tree_is_limited() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    for script in [
        "while :; do :; done",
        "for i in 1 2 3 4 5 6 7 8 9; do while :; do :; done & done; wait",
    ] {
        let job = Job::shell(script).limits(|limits| limits.cpu_ms = Some(Millis(300)));
        let ran = rig.run(&job)?;
        let Ending::Limit {
            limit: LimitName::Cpu,
            peak,
            ..
        } = ran.report.ending
        else {
            anyhow::bail!("{ran:?}");
        };
        ensure!(peak >= 300, "{ran:?}");
    }
    Ok(())
}

fn memory_of_the_tree_is_limited() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let one = "x = []\nwhile True: x.append(bytearray(1 << 20))";
    let ten = "import os, time\nfor _ in range(9):\n  if os.fork() == 0: break\nx = bytearray(30 << 20)\ntime.sleep(60)";
    for program in [one, ten] {
        let job =
            Job::python(program).limits(|limits| limits.memory_bytes = Some(ByteSize::mib(128)));
        let ran = rig.run(&job)?;
        let Ending::Limit {
            limit: LimitName::Memory,
            peak,
            ..
        } = ran.report.ending
        else {
            anyhow::bail!("{ran:?}");
        };
        ensure!(peak >= 128 << 20, "{ran:?}");
    }
    let shared = "import os, time\nx = bytearray(100 << 20)\n\
        for _ in range(10):\n  if os.fork() == 0: time.sleep(0.5); os._exit(0)\n\
        time.sleep(1)";
    let job = Job::python(shared).limits(|limits| limits.memory_bytes = Some(ByteSize::mib(256)));
    let ran = rig.run(&job)?;
    ensure!(
        ran.report.ending == Ending::Exited(0),
        "an innocent tree: {ran:?}"
    );
    Ok(())
}

fn an_idle_job_is_ended() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::new(&["sleep", "60"]).limits(|limits| limits.idle_ms = Some(Millis(300)));
    let ran = rig.run(&job)?;
    ensure!(
        matches!(
            ran.report.ending,
            Ending::Limit {
                limit: LimitName::Idle,
                ..
            }
        ),
        "{ran:?}"
    );
    Ok(())
}

fn a_file_may_not_grow_above_its_limit() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::new(&["head", "-c", "1000000", "/dev/zero"]);
    let job = Job {
        argv: vec![
            "sh".into(),
            "-c".into(),
            "exec head -c 1000000 /dev/zero > big".into(),
        ],
        ..job
    }
    .limits(|limits| limits.file_size_bytes = Some(ByteSize::kib(64)));
    let ran = rig.run(&job)?;
    ensure!(
        matches!(
            ran.report.ending,
            Ending::Limit {
                limit: LimitName::FileSize,
                ..
            }
        ),
        "{ran:?}"
    );
    Ok(())
}

fn a_stopped_job_is_stopped() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("sleep 60 & sleep 60");
    let attempt = rig.start(&job)?;
    rig.say(&ToWorker::Stop(attempt))?;
    let ran = rig.finish(&job)?;
    ensure!(ran.report.ending == Ending::Stopped, "{ran:?}");
    let ran = rig.run(&Job::new(&["true"]))?;
    ensure!(
        ran.report.ending == Ending::Exited(0),
        "the next job: {ran:?}"
    );
    Ok(())
}

fn an_init_killed_from_outside_ends_the_job() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::new(&["sleep", "60"]);
    rig.start(&job)?;
    let processes = rig.processes()?;
    let [_, init, _] = processes.as_slice() else {
        anyhow::bail!("{processes:?}");
    };
    kill(Pid::from_raw(i32::try_from(*init)?), Signal::SIGKILL)?;
    let ran = rig.finish(&job)?;
    let ending = &ran.report.ending;
    ensure!(matches!(ending, Ending::BoxFailed { .. }), "{ran:?}");
    let ran = rig.run(&Job::new(&["true"]))?;
    ensure!(
        ran.report.ending == Ending::Exited(0),
        "the next job: {ran:?}"
    );
    Ok(())
}

fn an_init_killed_at_any_moment_costs_its_job_alone() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("echo ran").input("file", 0o644, &vec![7; 200_000]);
    for delay in 0..60u32 {
        rig.send(&job)?;
        let mut init = None;
        for _ in 0..delay * 40 {
            init = rig.processes()?.get(1).copied().or(init);
        }
        if let Some(init) = init.or(rig.processes()?.get(1).copied()) {
            // It may have ended by itself.
            match kill(Pid::from_raw(i32::try_from(init)?), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let ran = rig.finish(&job)?;
        ensure!(
            match ran.report.ending {
                Ending::Exited(0) => ran.stdout == "ran\n",
                Ending::Signaled(9) => true,
                // It may be tried again. Between its exec and init's word it may have run, as in a lost worker.
                Ending::BoxFailed { .. } => ran.report.usage.wall_us == 0,
                _ => false,
            },
            "{delay}: {ran:?}"
        );
    }
    let ran = rig.run(&job)?;
    ensure!(ran.stdout == "ran\n", "the next job: {ran:?}");
    Ok(())
}

fn a_job_stopped_at_any_moment_is_told_once() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("echo ran; sleep 60");
    for delay in 0..40u32 {
        let attempt = rig.send(&job)?;
        for _ in 0..delay * 40 {
            rig.processes()?;
        }
        rig.say(&ToWorker::Stop(attempt))?;
        let ran = rig.finish(&job)?;
        ensure!(ran.report.ending == Ending::Stopped, "{delay}: {ran:?}");
    }
    let ran = rig.run(&Job::new(&["true"]))?;
    ensure!(
        ran.report.ending == Ending::Exited(0),
        "the next job: {ran:?}"
    );
    Ok(())
}
