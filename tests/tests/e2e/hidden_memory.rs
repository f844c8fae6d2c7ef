//! Memory that hides: what no look at processes would show without a cgroup is refused, counted otherwise, or looked at while
//! the tree stands still; and who hides nothing is left alone.
//!
//! `wpool run` samples: it has no cgroup of its own.

use anyhow::ensure;
use serde_json::Value;
use wpool_tests::test;
use wpool_tests::trial::Test;
use wpool_tests::wpool::{feed, run, wpool};

pub(crate) const TESTS: &[Test] = &[
    test!(memory_that_no_process_shows_cannot_be_had, "python3"),
    test!(a_process_without_its_first_thread_is_counted, "gcc"),
    test!(memory_that_is_handed_on_all_the_time_is_counted, "gcc"),
    test!(who_was_stopped_by_the_job_stays_stopped, "gcc"),
    test!(a_shell_that_minds_its_jobs_is_not_disturbed, "bash"),
    test!(a_file_that_is_mapped_often_is_told_once, "python3"),
];

/// Runs a Python program under these limits and gives its outcome.
fn python(limits: &[&str], code: &str) -> anyhow::Result<Value> {
    let program = ["--", "python3", "-c", code];
    let arguments = ["run", "--json"].iter().chain(limits).chain(&program);
    run(arguments)?.json()
}

/// Compiles a C program in its box, runs it with these arguments and a limit of 256 MiB, and gives its outcome.
fn compiled(source: &str, arguments: &[&str]) -> anyhow::Result<Value> {
    let script = "cat > t.c && gcc -w -O1 -pthread t.c -o t && exec ./t $0 $@";
    let limits = "run --json --stdin - --timeout 20s --memory 256M --processes 450";
    let program = ["--", "sh", "-c", script];
    let command = wpool(
        limits
            .split(' ')
            .chain(program)
            .chain(arguments.iter().copied()),
    );
    feed(command, source.as_bytes())?.json()
}

fn memory_that_no_process_shows_cannot_be_had() -> anyhow::Result<()> {
    // Pages of shared memory stay when they are unmapped, or given up, in all mappings but a corner of one. `run` samples.
    let code = "import mmap, os
def shared(fd):
    try: return mmap.mmap(fd, 8 << 20)
    except OSError as error: return error.strerror
zero = os.open('/dev/zero', os.O_RDWR)
print(shared(-1), shared(zero), os.read(zero, 3), sep='|')
with open('file', 'wb') as file: file.truncate(8 << 20)
print(len(shared(os.open('file', os.O_RDWR))))";
    let outcome = python(&[], code)?;
    let expected = "Operation not permitted|No such device|b'\\x00\\x00\\x00'\n8388608\n";
    ensure!(outcome["stdout"] == expected, "{outcome}");
    Ok(())
}

fn a_process_without_its_first_thread_is_counted() -> anyhow::Result<()> {
    let source = "
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *touch(void *unused) {
    usleep(200000);
    for (size_t megabyte = 0;; megabyte++) {
        volatile char *more = malloc(1 << 20);
        for (size_t n = 0; more && n < 1 << 20; n += 4096) more[n] = 1;
    }
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, touch, 0);
    syscall(SYS_exit, 0);
}";
    let outcome = compiled(source, &[])?;
    ensure!(outcome["cause"]["limit"] == "memory", "{outcome}");
    Ok(())
}

fn memory_that_is_handed_on_all_the_time_is_counted() -> anyhow::Result<()> {
    for way in ["process", "thread", "kill", "exec"] {
        let outcome = compiled(include_str!("handed_on.c"), &[way, "1500"])?;
        ensure!(outcome["cause"]["limit"] == "memory", "{way}: {outcome}");
    }
    Ok(())
}

fn who_was_stopped_by_the_job_stays_stopped() -> anyhow::Result<()> {
    // Below the limit, and hidden: the tree is stopped for a look, and goes on.
    let outcome = compiled(include_str!("handed_on.c"), &["process", "200"])?;
    ensure!(outcome["exit_code"] == 0, "{outcome}");
    ensure!(outcome["stdout"] == "still stopped\n", "{outcome}");
    Ok(())
}

fn a_shell_that_minds_its_jobs_is_not_disturbed() -> anyhow::Result<()> {
    let script = "set -m
for n in $(seq 40); do sleep 60 & done
(while :; do /bin/true; done) &
for n in $(seq 8); do sleep 0.2 || echo disturbed $?; done
jobs -s
echo done";
    let program = [
        "run", "--json", "--memory", "4G", "--", "bash", "-c", script,
    ];
    let outcome = run(program)?.json()?;
    ensure!(outcome["stdout"] == "done\n", "{outcome}");
    Ok(())
}

fn a_file_that_is_mapped_often_is_told_once() -> anyhow::Result<()> {
    let code = "import mmap, time
with open('/dev/shm/file', 'wb') as file: file.write(bytes(32 << 20))
file, kept = open('/dev/shm/file', 'r+b'), []
for _ in range(20):
    kept.append(mmap.mmap(file.fileno(), 32 << 20))
    for n in range(0, 32 << 20, 4096): kept[-1][n]
time.sleep(0.5)";
    let outcome = python(&["--memory", "256M"], code)?;
    ensure!(outcome["exit_code"] == 0, "{outcome}");
    let peak = outcome["usage"]["memory_peak_bytes"].as_u64();
    ensure!(peak.is_some_and(|peak| peak < 100 << 20), "{outcome}");
    Ok(())
}
