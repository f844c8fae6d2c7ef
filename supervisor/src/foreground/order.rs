//! What a worker is told about a job.

use std::collections::BTreeMap;

use wpool_protocol::id::AttemptRef;
use wpool_protocol::job::{InputContent, JobRequest};
use wpool_protocol::limits::Limits;
use wpool_protocol::wire::{
    CHUNK_MAX, InputBytes, InputHeader, InputTarget, JobOrder, Stdio, ToWorker,
};

/// The environment of every job, before its own variables.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/box"),
    ("TMPDIR", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("USER", "job"),
];

/// What is on the descriptors of a job whose output is kept.
pub(super) fn captured(request: &JobRequest) -> Stdio {
    let stdin_bytes = request.stdin.as_ref().map_or(0, |stdin| stdin.0.len());
    Stdio::Captured {
        stdin_bytes: u64::try_from(stdin_bytes).unwrap_or(u64::MAX),
    }
}

/// The order, the inputs in pieces, and the word to start.
pub(super) fn messages(
    request: &JobRequest,
    env_of_profile: &BTreeMap<String, String>,
    limits: Limits,
    attempt: AttemptRef,
    stdio: Stdio,
) -> impl Iterator<Item = ToWorker> + use<> {
    let mut inputs = Vec::with_capacity(request.files.len());
    let mut contents = Vec::with_capacity(request.files.len() + 1);
    if let (Stdio::Captured { .. }, Some(stdin)) = (stdio, &request.stdin) {
        contents.push((InputTarget::Stdin, stdin.0.clone()));
    }
    for (n, (name, file)) in (0u16..).zip(&request.files) {
        // Only a daemon has file roots; the command line reads files itself.
        let InputContent::Bytes(bytes) = &file.content else {
            continue;
        };
        inputs.push(InputHeader {
            name: name.clone(),
            mode: file.mode,
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        });
        contents.push((InputTarget::File(n), bytes.clone()));
    }
    let order = JobOrder {
        attempt,
        profile: 0,
        argv: request.command.clone(),
        env: environment(env_of_profile, &request.env),
        limits,
        stdio,
        inputs,
        outputs: request.outputs.clone(),
    };
    let pieces = contents.into_iter().flat_map(|(target, bytes)| {
        let chunks: Vec<_> = bytes.chunks(CHUNK_MAX).map(<[u8]>::to_vec).collect();
        chunks
            .into_iter()
            .map(move |bytes| ToWorker::Input(InputBytes { target, bytes }))
    });
    std::iter::once(ToWorker::Job(Box::new(order)))
        .chain(pieces)
        .chain(std::iter::once(ToWorker::Start(attempt)))
}

/// What the sandbox sets; over it what the profile sets; over that what the job names.
fn environment(
    profile: &BTreeMap<String, String>,
    job: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = ENVIRONMENT
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    env.extend(profile.clone());
    env.extend(job.clone());
    env.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use wpool_protocol::blob::Blob;
    use wpool_protocol::id::{AttemptNumber, JobId};
    use wpool_protocol::job::InputFile;

    use super::*;

    #[test]
    fn inputs_come_in_pieces_between_order_and_start() {
        let file = InputFile {
            content: InputContent::Bytes(vec![7; CHUNK_MAX + 1]),
            mode: 0o644,
        };
        let request = JobRequest {
            command: vec!["true".into()],
            stdin: Some(Blob(b"in".to_vec())),
            files: [("a".parse().unwrap(), file)].into(),
            env: [("HOME".into(), "/tmp".into())].into(),
            ..JobRequest::default()
        };
        let attempt = AttemptRef {
            job: JobId(1),
            attempt: AttemptNumber::FIRST,
        };
        let profile = [("HOME", "/srv"), ("LANG", "C")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let stdio = captured(&request);
        let messages: Vec<_> =
            messages(&request, &profile, Limits::DEFAULT, attempt, stdio).collect();
        let [
            ToWorker::Job(order),
            ToWorker::Input(zeroth),
            ToWorker::Input(first),
            ToWorker::Input(second),
            ToWorker::Start(_),
        ] = messages.as_slice()
        else {
            panic!("{messages:?}")
        };
        assert_eq!(order.stdio, Stdio::Captured { stdin_bytes: 2 });
        assert_eq!(order.inputs[0].size, u64::try_from(CHUNK_MAX + 1).unwrap());
        assert_eq!(zeroth.target, InputTarget::Stdin);
        assert_eq!((first.bytes.len(), second.bytes.len()), (CHUNK_MAX, 1));
        let lang = ("LANG".to_owned(), "C".to_owned());
        assert!(order.env.contains(&lang), "the profile is over the sandbox");
        let homes: Vec<_> = order
            .env
            .iter()
            .filter(|(name, _)| name == "HOME")
            .collect();
        assert_eq!(homes, [&("HOME".to_owned(), "/tmp".to_owned())]);
    }
}
