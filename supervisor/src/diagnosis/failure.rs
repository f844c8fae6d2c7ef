//! What failed, as far as its causes differ: when, in which layer, and with which answer of the kernel's.

use std::error::Error;
use std::io;

use nix::errno::Errno;
use wpool_protocol::wire::Refused;
use wpool_sys::birth::BirthStep;

use crate::birth::BirthError;
use crate::birth::ids::NoIds;

use super::{Facts, explain};

/// When something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A process in namespaces of its own was to be made.
    Clone,
    /// Its ids were to be mapped.
    Ids,
    /// It was to become a worker.
    Start,
    /// The worker was to build a layer.
    Build,
}

/// Whether another try can end otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Not before somebody changes the host.
    Lasting,
    /// It can: something was used up.
    Passing,
}

/// Something that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub stage: Stage,
    /// In which layer, where that is known.
    pub layer: Option<String>,
    /// The kernel's answer, where there is one.
    pub errno: Option<i32>,
    /// All of it in words.
    pub said: String,
    /// What its teller would do.
    remedy: Option<String>,
}

impl Failure {
    /// A worker that could not be born, unless that is no matter of the kernel's.
    pub fn of_birth(error: &BirthError) -> Option<Self> {
        let BirthError::Process(process) = error else {
            return None;
        };
        let stage = match process.step {
            BirthStep::Clone => Stage::Clone,
            BirthStep::DenySetgroups | BirthStep::UidMap | BirthStep::GidMap => Stage::Ids,
            BirthStep::Prepare | BirthStep::Settle | BirthStep::Gate => return None,
        };
        Some(Self::new(
            stage,
            process.source.raw_os_error(),
            in_words(process),
        ))
    }

    /// Ids that could not be had, unless that says itself why.
    pub fn of_ids(error: &NoIds) -> Option<Self> {
        let NoIds::Steward(source) = error else {
            return None;
        };
        Some(Self::new(
            Stage::Clone,
            source.raw_os_error(),
            in_words(error),
        ))
    }

    /// A thread that could not be started: the C library makes it by the same call.
    pub fn of_thread(what: &str, error: &io::Error) -> Self {
        Self::new(
            Stage::Clone,
            error.raw_os_error(),
            format!("failed to {what}: {error}"),
        )
    }

    /// A worker that never was: what it said before it could execute its program.
    pub fn of_start(said: &str) -> Self {
        Self::new(Stage::Start, errno_in(said), said.to_owned())
    }

    /// A layer that a worker could not build.
    pub fn of_layer(refused: &Refused) -> Self {
        Self {
            layer: Some(refused.layer.clone()),
            remedy: Some(refused.remedy.clone()),
            ..Self::new(
                Stage::Build,
                errno_in(&refused.reason),
                refused.reason.clone(),
            )
        }
    }

    const fn new(stage: Stage, errno: Option<i32>, said: String) -> Self {
        Self {
            stage,
            layer: None,
            errno,
            said,
            remedy: None,
        }
    }

    /// Whether another try can end otherwise.
    pub fn course(&self) -> Course {
        let used_up = [
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::EINTR,
        ];
        match self.errno.map(Errno::from_raw) {
            Some(errno) if !used_up.contains(&errno) => Course::Lasting,
            Some(_) | None => Course::Passing,
        }
    }

    /// Why it failed on this host.
    pub fn explained(&self) -> Refused {
        explain(&Facts::gather(), self)
    }

    /// What can be said of it when nothing accounts for it: a worker knows itself what a layer needs.
    pub fn unexplained(&self) -> Refused {
        let (layer, remedy) = match (&self.layer, &self.remedy) {
            (Some(layer), Some(remedy)) => {
                return Refused {
                    layer: layer.clone(),
                    reason: self.said.clone(),
                    remedy: remedy.clone(),
                };
            }
            (Some(layer), None) => (layer.as_str(), WHO_REFUSED),
            (None, _) if self.stage == Stage::Start => ("worker", WHO_REFUSED),
            (None, _) => ("namespaces", WHO_REFUSED),
        };
        Refused {
            layer: layer.to_owned(),
            reason: format!(
                "{}: nothing that wpool looks at here explains it",
                self.said
            ),
            remedy: remedy.to_owned(),
        }
    }
}

/// What to do where nobody knows.
const WHO_REFUSED: &str =
    "as root, see what refused it: dmesg | grep -iE 'apparmor|audit|seccomp' | tail";

fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words.push_str(": ");
        words.push_str(&error.to_string());
        source = error.source();
    }
    words
}

/// The errno that a text ends with, as [`io::Error`] writes it: a worker's messages are made of words.
fn errno_in(said: &str) -> Option<i32> {
    let (_, number) = said.rsplit_once("(os error ")?;
    number.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_of_a_text_is_found_at_its_end_alone() {
        let said = |errno: Errno| format!("failed to x: {}", io::Error::from(errno));
        assert_eq!(errno_in(&said(Errno::EPERM)), Some(1));
        assert_eq!(errno_in("failed to x (os error 1): no"), None);
        assert_eq!(errno_in("(os error 99999999999)"), None);
        assert_eq!(errno_in(""), None);
    }

    #[test]
    fn what_is_used_up_passes_and_what_is_refused_lasts() {
        let failed = |errno: Errno| Failure::new(Stage::Clone, Some(errno as i32), String::new());
        assert_eq!(failed(Errno::EAGAIN).course(), Course::Passing);
        assert_eq!(failed(Errno::EPERM).course(), Course::Lasting);
        assert_eq!(failed(Errno::ENOSPC).course(), Course::Lasting);
    }
}
