//! What only a job's worker needs of it: command, environment, inputs; and how they are put into messages.
//!
//! # Invariants
//!
//! - Inputs go in the order in which they are announced, in chunks of at most [`CHUNK_MAX`]; an empty one has none.

use std::collections::BTreeMap;

use wpool_protocol::id::AttemptRef;
use wpool_protocol::limits::Limits;
use wpool_protocol::path::BoxPath;
use wpool_protocol::wire::{CHUNK_MAX, InputBytes, InputHeader, InputTarget, JobOrder, Stdio};

/// The environment of every job, before its profile's variables and its own.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/box"),
    ("TMPDIR", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("USER", "job"),
];

/// What only a job's worker needs of it: let go of as soon as the job has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Files to lay into the box.
    pub files: Vec<Input>,
    /// Names or patterns of files to bring out.
    pub outputs: Vec<String>,
}

/// A file to lay into the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name there.
    pub name: BoxPath,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Payload {
    /// Bytes of memory that the command, the environment, standard input, the files and the names of outputs take.
    pub fn bytes(&self) -> u64 {
        let env = self
            .env
            .iter()
            .map(|(name, value)| text(name) + text(value));
        let files = self
            .files
            .iter()
            .map(|file| size_of::<Input>() + file.name.as_str().len() + file.bytes.len());
        let bytes = self.argv.iter().map(|it| text(it)).sum::<usize>()
            + env.sum::<usize>()
            + files.sum::<usize>()
            + self.outputs.iter().map(|it| text(it)).sum::<usize>()
            + self.stdin.len();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The descriptors of a job whose output is kept, and whose input is this.
    pub fn captured(&self) -> Stdio {
        Stdio::Captured {
            stdin_bytes: u64::try_from(self.stdin.len()).unwrap_or(u64::MAX),
        }
    }

    /// The order for a worker.
    pub fn order(
        &self,
        attempt: AttemptRef,
        profile: u16,
        limits: Limits,
        stdio: Stdio,
    ) -> JobOrder {
        let inputs = self.files.iter().map(|file| InputHeader {
            name: file.name.clone(),
            mode: file.mode,
            size: u64::try_from(file.bytes.len()).unwrap_or(u64::MAX),
        });
        JobOrder {
            attempt,
            profile,
            argv: self.argv.clone(),
            env: self.env.clone(),
            limits,
            stdio,
            inputs: inputs.collect(),
            outputs: self.outputs.clone(),
        }
    }
}

/// Bytes of memory that a text takes: an empty one is not free.
pub(super) const fn text(text: &str) -> usize {
    size_of::<String>() + text.len()
}

/// What the sandbox sets, over it the profile's variables, over them the job's.
pub(crate) fn environment(
    profile: &BTreeMap<String, String>,
    own: BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = ENVIRONMENT
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.extend(profile.clone());
    env.extend(own);
    env.into_iter().collect()
}

/// How far the inputs of a job have been written.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// 0 is standard input, n is the file before number n.
    input: usize,
    offset: usize,
}

impl Place {
    /// The next chunk; `None` when all have been written.
    pub(crate) fn next_chunk(&mut self, payload: &Payload) -> Option<InputBytes> {
        loop {
            let (target, bytes) = match self.input.checked_sub(1) {
                None => (InputTarget::Stdin, &payload.stdin),
                Some(n) => {
                    let index = u16::try_from(n).ok()?;
                    (InputTarget::File(index), &payload.files.get(n)?.bytes)
                }
            };
            let rest = bytes.get(self.offset..).unwrap_or_default();
            if rest.is_empty() {
                self.input += 1;
                self.offset = 0;
                continue;
            }
            let chunk = rest.get(..CHUNK_MAX).unwrap_or(rest);
            self.offset += chunk.len();
            return Some(InputBytes {
                target,
                bytes: chunk.to_vec(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_go_in_order_and_in_chunks_and_empty_ones_need_none() {
        let file = |name: &str, len: usize| Input {
            name: name.parse().unwrap(),
            mode: 0o644,
            bytes: vec![7; len],
        };
        let payload = Payload {
            argv: vec![],
            env: vec![],
            stdin: vec![1; 3],
            files: vec![file("a", 0), file("b", CHUNK_MAX + 1), file("c", CHUNK_MAX)],
            outputs: vec![],
        };
        let mut place = Place::default();
        let chunks: Vec<_> = std::iter::from_fn(|| place.next_chunk(&payload))
            .map(|chunk| (chunk.target, chunk.bytes.len()))
            .collect();
        assert_eq!(
            chunks,
            [
                (InputTarget::Stdin, 3),
                (InputTarget::File(1), CHUNK_MAX),
                (InputTarget::File(1), 1),
                (InputTarget::File(2), CHUNK_MAX),
            ]
        );
    }
    #[test]
    fn the_job_is_over_its_profile_and_the_profile_over_the_sandbox() {
        let variables = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let profile = variables(&[("HOME", "/srv"), ("LANG", "C")]);
        let env = environment(&profile, variables(&[("HOME", "/tmp")]));
        let of = |name: &str| -> Vec<_> {
            let values = env.iter().filter(|(of, _)| of == name);
            values.map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(
            (of("HOME"), of("LANG"), of("USER")),
            (vec!["/tmp"], vec!["C"], vec!["job"])
        );
    }
}
