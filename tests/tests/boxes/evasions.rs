//! Limits hold however a job tries to get around them, and what a job says of its end is not believed.

use anyhow::ensure;
use wpool_protocol::wire::Ending;
use wpool_tests::rig::{Job, Rig};
use wpool_tests::test;
use wpool_tests::trial::Test;

pub(crate) const TESTS: &[Test] = &[
    test!(memory_that_belongs_to_no_process_cannot_be_made, "python3"),
    test!(a_job_stays_on_its_cores, "python3"),
    test!(nobody_is_kept_from_a_shared_file_by_a_lease, "python3"),
];

/// Runs a program that says `refused` for everything it tries.
fn refused(program: &str) -> anyhow::Result<()> {
    let ran = Rig::new()?.run(&Job::python(program))?;
    ensure!(ran.report.ending == Ending::Exited(0), "{ran:?}");
    ensure!(!ran.stdout.is_empty(), "it has tried nothing: {ran:?}");
    ensure!(
        ran.stdout.lines().all(|line| line.starts_with("refused")),
        "{ran:?}"
    );
    Ok(())
}

fn memory_that_belongs_to_no_process_cannot_be_made() -> anyhow::Result<()> {
    // Numbers of x86_64: shmget, semget, msgget, memfd_create.
    refused(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        for call in [(29, 0, 1 << 26, 0o1600), (64, 0, 32000, 0o1600), (68, 0, 0o1600), (319, b'x', 0)]:\n\
        \x20 print('made' if libc.syscall(*call) >= 0 else 'refused', call[0])",
    )
}

fn a_job_stays_on_its_cores() -> anyhow::Result<()> {
    let mut rig = Rig::with_cores(vec![0])?;
    // `taskset` and those who pin their threads shall go on as if it had worked.
    let program = "import os\nos.sched_setaffinity(0, range(64))\nprint(os.sched_getaffinity(0))";
    let ran = rig.run(&Job::python(program))?;
    ensure!(ran.stdout == "{0}\n", "{ran:?}");
    Ok(())
}

fn nobody_is_kept_from_a_shared_file_by_a_lease() -> anyhow::Result<()> {
    refused(
        "import fcntl, os\nfile = open('/box/file', 'w+')\n\
        for what, argument in [(fcntl.F_SETLEASE, fcntl.F_WRLCK), (fcntl.F_NOTIFY, fcntl.DN_ACCESS)]:\n\
        \x20 try: fcntl.fcntl(file if what == fcntl.F_SETLEASE else os.open('/usr', 0), what, argument); print('done', what)\n\
        \x20 except OSError as error: print('refused', what, error)",
    )
}
