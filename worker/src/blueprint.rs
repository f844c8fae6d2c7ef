//! The sandbox of a slot as one value: all that will be done, before any of it is.
//!
//! The shipped worker carries out [`Blueprint::on`] as it is. Whoever embeds this crate can alter it before, which is
//! how tests take a layer away to see an attack succeed that it else contains: there is no flag and no variable for that.
//!
//! # Invariants
//!
//! - What is not in it is not done: no step hides in the code that carries it out.

use wpool_protocol::wire::ProfileSetup;
use wpool_sys::namespaces::Namespaces;

use crate::ground::Ground;
use crate::plan::host::Layout;
use crate::plan::{self, Lockdown, Step};
use crate::seccomp::{self, Accounting};

/// The sandbox of a slot.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// What the worker does, once.
    pub worker: Vec<Step>,
    /// What a job's init does, by profile.
    pub job: Vec<Vec<Step>>,
    /// What a job's init is born into.
    pub namespaces: Namespaces,
    /// What a job's process does to itself.
    pub lockdown: Vec<Lockdown>,
    /// The filter that it loads.
    pub filter: seccomp::Program,
}

/// Makes another sandbox of one.
pub type Alteration = fn(Blueprint) -> Blueprint;

impl Blueprint {
    /// With every layer that can stand on this ground.
    pub fn on(
        ground: &Ground,
        layout: &Layout,
        profiles: &[ProfileSetup],
        accounting: Accounting,
    ) -> Self {
        let job = (0u16..)
            .zip(profiles)
            .map(|(index, _)| plan::job::plan(layout, &plan::slot::template(index), ground));
        Self {
            worker: plan::slot::plan(layout, profiles, accounting, ground),
            job: job.collect(),
            namespaces: ground.of(Namespaces::JOB),
            lockdown: plan::lockdown(ground),
            filter: seccomp::Program::on(ground, accounting),
        }
    }
}
