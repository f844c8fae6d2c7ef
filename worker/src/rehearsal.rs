//! Finds out what of a sandbox this host allows, where `isolation = "reduced"` lets jobs run without some of it.
//!
//! # Invariants
//!
//! - Only what stands for no wall by itself is left out here; everything else is refused, and the supervisor decides
//!   what the next worker is born without.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::slice;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use wpool_protocol::wire::Refused;
use wpool_sys::clone3::SingleThreaded;
use wpool_sys::namespaces::Namespaces;

use crate::apply::{self, Detached, StepError, new_files};
use crate::ground::Ground;
use crate::layers;
use crate::plan::Step;

/// Carries out the worker's own steps, and leaves out what can be.
pub(crate) fn build(
    steps: &[Step],
    detached: &Detached,
    ground: &mut Ground,
) -> Result<(), Refused> {
    for step in steps {
        if let Err(error) = apply::apply(slice::from_ref(step), detached) {
            leave_out(&error, ground)?;
        }
    }
    Ok(())
}

/// Tries the steps of a job whose files are `owner`'s in a process that is none, and takes out what cannot be done and need not be.
pub(crate) fn rehearse(
    single: SingleThreaded,
    namespaces: Namespaces,
    steps: &mut Vec<Step>,
    owner: u32,
    ground: &mut Ground,
) -> Result<(), Refused> {
    while let Some((index, source)) = try_steps(single, namespaces, steps, owner)
        .map_err(|error| layers::refused("pid", "bear a job's init (clone3)", &error))?
    {
        let step = steps.remove(index);
        leave_out(&StepError { step, source }, ground)?;
    }
    Ok(())
}

fn leave_out(error: &StepError, ground: &mut Ground) -> Result<(), Refused> {
    let Some(layer) = dispensable(&error.step) else {
        return Err(layers::refused_step(error));
    };
    let Refused { reason, remedy, .. } = layers::refused_step(error);
    ground.lacks_too(layer, reason, &remedy);
    Ok(())
}

/// What is missing without a step that a job can do without.
const fn dispensable(step: &Step) -> Option<&'static str> {
    match step {
        Step::SetHostname => Some("uts"),
        Step::BringUpLoopback => Some("loopback"),
        // The filter refuses further namespaces, too.
        Step::ForbidUserNamespaces => Some("nested_namespaces"),
        Step::Set { .. } => Some("kernel_settings"),
        Step::MountMqueue { .. } => Some("message_queues"),
        Step::MountPts { .. } => Some("terminals"),
        _ => None,
    }
}

/// The first step that fails, and how.
fn try_steps(
    single: SingleThreaded,
    namespaces: Namespaces,
    steps: &[Step],
    owner: u32,
) -> io::Result<Option<(usize, io::Error)>> {
    let needs_files = steps
        .iter()
        .any(|step| matches!(step, Step::AttachFiles { .. }));
    let detached = Detached {
        mounts: Vec::new(),
        files: needs_files
            .then(|| new_files(1 << 20, 16, owner))
            .transpose()?,
    };
    let (mut reader, writer) = io::pipe()?;
    let mut writer = Some(writer);
    let child = single.fork(namespaces, None, || {
        let failed = (0u32..).zip(steps).find_map(|(index, step)| {
            let applied = apply::apply(slice::from_ref(step), &detached);
            applied.err().map(|error| (index, error.source))
        });
        let Some((index, error)) = failed else {
            return 0;
        };
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let record = [index.to_le_bytes(), errno.to_le_bytes()].concat();
        u8::from(
            writer
                .take()
                .is_none_or(|mut it| it.write_all(&record).is_err()),
        )
    })?;
    drop(writer);
    let mut record = Vec::new();
    reader.read_to_end(&mut record)?;
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    let Some((index, errno)) = record.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let errno = errno.first_chunk().copied().unwrap_or_default();
    let index = usize::try_from(u32::from_le_bytes(*index)).unwrap_or(usize::MAX);
    let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
    Ok((index < steps.len()).then_some((index, error)))
}
