//! Tests that say what they need of the host, and are skipped with that reason where it is not there.
//!
//! # Invariants
//!
//! - A test is skipped only for something that is named, and that the host lacks; the runner counts it as ignored.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::host;

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Its name: a sentence.
    pub name: &'static str,
    /// Programs that it needs, or `root`, or `not root`, or `open binary`: a wpool that every user can execute.
    pub needs: &'static [&'static str],
    /// What it does.
    pub body: fn() -> anyhow::Result<()>,
}

/// Names a function as a test, with what it needs: `test!(a_sentence, "python3", "gcc")`.
#[macro_export]
macro_rules! test {
    ($body:ident $(, $need:literal)*) => {
        $crate::trial::Test {
            name: stringify!($body),
            needs: &[$($need),*],
            body: $body,
        }
    };
}

/// Runs tests as `cargo test` expects.
pub fn run<'a>(tests: impl IntoIterator<Item = &'a [Test]>) -> ExitCode {
    run_all(tests.into_iter().flatten().map(Test::trial))
}

/// Runs trials as `cargo test` expects.
pub fn run_all(trials: impl IntoIterator<Item = Trial>) -> ExitCode {
    let trials = trials.into_iter().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A trial of this name that needs this of the host.
pub fn new(
    name: &str,
    needs: &'static [&'static str],
    body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match missing(needs) {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => match body() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(Failed::from(format!("{error:?}"))),
        },
    })
}

impl Test {
    /// As something that can be run.
    pub fn trial(&self) -> Trial {
        new(self.name, self.needs, self.body)
    }
}

/// What of `needs` the host lacks, in words.
fn missing(needs: &[&str]) -> Option<String> {
    let root = nix::unistd::geteuid().is_root();
    needs.iter().find_map(|&need| match need {
        "root" => (!root).then(|| "it must be run as root".to_owned()),
        "not root" => root.then(|| "it must be run as an ordinary user".to_owned()),
        "open binary" => {
            let reason = || "wpool lies in a folder that only its owner may enter".to_owned();
            (!host::is_for_everybody()).then(reason)
        }
        program => (!is_installed(program)).then(|| format!("{program} is not in /usr/bin")),
    })
}

/// Whether a program is where jobs see it.
fn is_installed(program: &str) -> bool {
    ["/usr/bin", "/usr/local/bin", "/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists())
}
