//! Bytes of a job: what it reads, what it writes, the files it gets and gives.

use anyhow::ensure;
use wpool_protocol::limits::LimitName;
use wpool_protocol::outcome::OutputError;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::{Ending, FromWorker, ToWorker, Written};
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[
    test!(streams_are_kept_apart),
    test!(streams_can_be_opened_by_name),
    test!(a_large_input_is_fed_whole),
    test!(a_stream_that_somebody_outside_holds_ends_with_its_job),
    test!(ten_gigabytes_of_output_leave_memory_flat),
    test!(files_go_in_and_come_out),
    test!(inputs_that_do_not_fit_are_a_limit),
    test!(outputs_that_cannot_be_delivered_say_why),
    test!(a_ping_is_answered_while_outputs_are_brought_out),
];

fn streams_are_kept_apart() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let ran = rig.run(&Job::shell("echo out; echo err >&2; exit 3"))?;
    ensure!(ran.report.ending == Ending::Exited(3), "{ran:?}");
    ensure!(
        (ran.stdout.as_str(), ran.stderr.as_str()) == ("out\n", "err\n"),
        "{ran:?}"
    );
    Ok(())
}

fn streams_can_be_opened_by_name() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let script =
        "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr; echo more >> /proc/self/fd/1";
    let ran = rig.run(&Job {
        stdin: b"in\n".to_vec(),
        ..Job::shell(script)
    })?;
    ensure!(
        (ran.stdout.as_str(), ran.stderr.as_str()) == ("in\nmore\n", "err\n"),
        "{ran:?}"
    );
    Ok(())
}

fn a_large_input_is_fed_whole() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let stdin: Vec<u8> = (0..5_000_000u32)
        .map(|n| (n % 251).to_le_bytes()[0])
        .collect();
    let job = Job {
        stdin,
        ..Job::new(&["sh", "-c", "wc -c; sleep 0.1"])
    };
    let ran = rig.run(&job)?;
    ensure!(ran.stdout.trim() == "5000000", "{ran:?}");
    // A job that reads nothing is no reason to wait.
    let ran = rig.run(&Job {
        argv: vec!["true".into()],
        ..job
    })?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    Ok(())
}

fn a_stream_that_somebody_outside_holds_ends_with_its_job() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::shell("echo said; sleep 60");
    let attempt = rig.start(&job)?;
    rig.written_more(Written {
        attempt,
        stdout: 0,
        stderr: 0,
    })?;
    // As a server of the host's has it whose socket the job was shown, and that was sent it.
    let job_pid = rig.processes()?.last().copied().unwrap_or(0);
    let held = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{job_pid}/fd/1"))?;
    rig.say(&ToWorker::Stop(attempt))?;
    let ran = rig.finish(&job)?;
    ensure!(ran.report.ending == Ending::Stopped, "{ran:?}");
    ensure!(ran.stdout == "said\n", "{ran:?}");
    drop(held);
    Ok(())
}

fn ten_gigabytes_of_output_leave_memory_flat() -> anyhow::Result<()> {
    const BYTES: u64 = 10_000_000_000;
    let mut rig = Rig::new()?;
    rig.run(&Job::shell("head -c 100000000 /dev/zero"))?;
    let before = rig.resident_bytes()?;
    let script = format!("echo first; head -c {BYTES} /dev/zero; echo last");
    // On a crowded machine it takes more than the half minute that a job has by default.
    let patient = Job::shell(&script).limits(|limits| {
        limits.timeout_ms = Some(Millis(300_000));
        limits.cpu_ms = Some(Millis(300_000));
    });
    let ran = rig.run(&patient)?;
    ensure!(ran.report.ending == Ending::Exited(0), "{:?}", ran.report);
    ensure!(ran.report.written.stdout == BYTES + 11, "{:?}", ran.report);
    ensure!(ran.stdout.starts_with("first\n\0") && ran.stdout.ends_with("\0last\n"));
    ensure!(ran.stdout.len() == 1 << 20, "{}", ran.stdout.len());
    let after = rig.resident_bytes()?;
    ensure!(after < before + (1 << 20), "{before}, then {after}");
    Ok(())
}

fn files_go_in_and_come_out() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let large: Vec<u8> = (0..1_000_000u32)
        .map(|n| (n % 253).to_le_bytes()[0])
        .collect();
    let script = "stat -c '%a %U %s %n' in/large tool empty && ./tool && cp in/large out.bin && mkdir -p d/e && echo x > d/e/y.txt";
    let job = Job::shell(script)
        .input("in/large", 0o600, &large)
        .input("tool", 0o755, b"#!/bin/sh\necho tool runs\n")
        .input("empty", 0o644, b"")
        .output("out.bin")
        .output("d/**/*.txt")
        .output("nothing");
    let ran = rig.run(&job)?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(
        ran.stdout == "600 job 1000000 in/large\n755 job 25 tool\n644 job 0 empty\ntool runs\n",
        "{ran:?}"
    );
    let mut files = ran.files;
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    ensure!(
        files
            == [
                (b"d/e/y.txt".to_vec(), Ok(b"x\n".to_vec())),
                (b"nothing".to_vec(), Err(OutputError::Missing)),
                (b"out.bin".to_vec(), Ok(large)),
            ]
    );
    Ok(())
}

fn inputs_that_do_not_fit_are_a_limit() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let job = Job::new(&["true"])
        .input("large", 0o644, &vec![1; 2 << 20])
        .limits(|limits| limits.disk_bytes = Some(ByteSize::mib(1)));
    let ran = rig.run(&job)?;
    ensure!(
        matches!(
            ran.report.ending,
            Ending::Limit {
                limit: LimitName::Disk,
                ..
            }
        ),
        "{ran:?}"
    );
    let ran = rig.run(&Job::new(&["true"]))?;
    ensure!(
        ran.report.ending == Ending::Exited(0),
        "the next job: {ran:?}"
    );
    Ok(())
}

fn outputs_that_cannot_be_delivered_say_why() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let script = "ln -s /etc/passwd link; mkfifo pipe; mkdir dir; ln -s /proc/1 d; truncate -s 1G sparse; ln /box/x hard 2>/dev/null; echo ok > ok";
    let mut job =
        Job::shell(script).limits(|limits| limits.file_size_bytes = Some(ByteSize::gib(16)));
    for name in ["link", "pipe", "dir", "d/environ", "sparse", "ok"] {
        job = job.output(name);
    }
    let ran = rig.run(&job)?;
    for (name, content) in &ran.files {
        let name = String::from_utf8_lossy(name);
        match (name.as_ref(), content) {
            ("ok", Ok(content)) => ensure!(content == b"ok\n"),
            (_, Ok(content)) => anyhow::bail!("{name} came out: {} bytes", content.len()),
            (_, Err(_)) => {}
        }
    }
    ensure!(ran.files.len() == 6, "{:?}", ran.files);
    Ok(())
}

fn a_ping_is_answered_while_outputs_are_brought_out() -> anyhow::Result<()> {
    let mut rig = Rig::new()?;
    let script = "i=0; while [ $i -lt 4000 ]; do : > file-$i; i=$((i+1)); done";
    let job = Job::shell(script).output("*");
    rig.send(&job)?;
    // From the first file on the worker is at it: what is still to come is more than its pipe holds.
    while !matches!(rig.hear()?, FromWorker::Output(_)) {}
    rig.say(&ToWorker::Ping(7))?;
    let mut files = 1;
    loop {
        match rig.hear()? {
            FromWorker::Output(_) => files += 1,
            FromWorker::Pong(7) => break,
            other => anyhow::bail!("{other:?} after {files} files"),
        }
    }
    ensure!(files < 4_000, "it was answered when all was out");
    let ran = rig.finish(&job)?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(files + ran.files.len() == 4_000, "{files}");
    Ok(())
}
