//! Calls that somebody else than the kernel answers, and calls that an old kernel does not have.

use nix::errno::Errno;
use wpool_sys::probe::{Answer, Call};

use super::{EINVAL, ENOSYS};
use crate::diagnosis::facts::{Facts, Wsl};
use crate::diagnosis::remedy::{self, Remedy};
use crate::diagnosis::{Finding, Sign, Stage};

/// From which version on the kernel has a call.
const fn since(call: Call) -> (u32, u32) {
    match call {
        Call::Clone3 => (5, 3),
        // With CLOSE_RANGE_CLOEXEC.
        Call::CloseRange => (5, 11),
        Call::Mount | Call::Umount => (2, 6),
        Call::OpenTree => (5, 2),
        Call::MountSetattr => (5, 12),
        Call::Seccomp => (3, 17),
    }
}

/// How a call that is not the kernel's shows.
const fn sign(call: Call) -> Sign {
    match call {
        Call::Clone3 => Sign::at(Stage::Clone, &[]),
        Call::CloseRange => Sign::at(Stage::Start, &[]),
        Call::Mount | Call::Umount | Call::OpenTree | Call::MountSetattr => {
            Sign::building(&["mount", "pid", "ipc"], &[])
        }
        Call::Seccomp => Sign::building(&["seccomp"], &[]),
    }
}

/// The layer that goes with it.
const fn layer(call: Call) -> &'static str {
    match call {
        Call::Clone3 | Call::CloseRange => "namespaces",
        Call::Mount | Call::Umount | Call::OpenTree | Call::MountSetattr => "mount",
        Call::Seccomp => "seccomp",
    }
}

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let strange = facts
        .calls
        .iter()
        .copied()
        .filter(|(_, answer)| *answer != Answer::Kernel);
    let (old, filtered): (Vec<_>, Vec<_>) = strange.partition(|(call, answer)| {
        let is_older = facts
            .version()
            .is_some_and(|version| version < since(*call));
        let is_unknown = matches!(answer, Answer::Errno(ENOSYS | EINVAL));
        is_unknown && (is_older || facts.seccomp == Some(0))
    });
    let mut found: Vec<Finding> = old
        .into_iter()
        .map(|(call, _)| not_there(facts, call))
        .collect();
    // One filter, one finding: its layer is that of the call that is needed first.
    if let Some((first, _)) = filtered.first() {
        let answers: Vec<_> = filtered
            .iter()
            .map(|(call, answer)| in_words(*call, *answer))
            .collect();
        let reason = format!(
            "a seccomp filter around wpool answers {}",
            answers.join(", ")
        );
        let remedy = remedy::of_surroundings(facts);
        let finding = match facts.seccomp {
            Some(0) | None => Finding::possible(layer(*first), reason, remedy),
            Some(_) => Finding::certain(layer(*first), reason, remedy),
        };
        found.push(finding.showing(filtered.iter().map(|(call, _)| sign(*call))));
    }
    found
}

fn not_there(facts: &Facts, call: Call) -> Finding {
    let (major, minor) = since(call);
    let reason = format!(
        "the kernel, Linux {}, does not have {} ({major}.{minor})",
        facts.release,
        call.name()
    );
    let remedy = match facts.wsl {
        Some(Wsl::Two) => Remedy::new("in Windows", "wsl --update"),
        Some(Wsl::One) => Remedy::new("in Windows", "wsl --set-version DISTRIBUTION 2"),
        None => Remedy::new("boot a kernel of", "Linux 5.15 or newer"),
    };
    Finding::certain("kernel", reason, remedy).showing([sign(call)])
}

fn in_words(call: Call, answer: Answer) -> String {
    let name = call.name();
    match answer {
        // A call that must fail, and is said to have succeeded.
        Answer::Errno(0) => format!("{name} with success"),
        Answer::Errno(errno) => format!("{name} with {:?}", Errno::from_raw(errno)),
        Answer::Ended => format!("{name} by ending its caller"),
        Answer::Kernel => format!("{name} as the kernel does"),
    }
}
