//! What a worker is told about a job that runs in the foreground.

use std::collections::BTreeMap;

use wpool_protocol::id::AttemptRef;
use wpool_protocol::job::{InputContent, JobRequest};
use wpool_protocol::wire::{JobOrder, ToWorker};

use crate::request::payload::{Input, Payload, Place, environment};

/// Where a job's standard input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdin {
    /// From the request.
    Request,
    /// From a descriptor that the worker was born with.
    Inherited,
}

/// What a worker needs of the request.
pub(super) fn payload(
    request: &JobRequest,
    env_of_profile: &BTreeMap<String, String>,
    stdin: Stdin,
) -> Payload {
    let stdin = match (stdin, &request.stdin) {
        (Stdin::Request, Some(stdin)) => stdin.0.clone(),
        (Stdin::Request, None) | (Stdin::Inherited, _) => Vec::new(),
    };
    let files = request.files.iter().filter_map(|(name, file)| {
        // Only a daemon has file roots; the command line reads files itself.
        let InputContent::Bytes(bytes) = &file.content else {
            return None;
        };
        Some(Input {
            name: name.clone(),
            mode: file.mode,
            bytes: bytes.clone(),
        })
    });
    Payload {
        argv: request.command.clone(),
        env: environment(env_of_profile, request.env.clone()),
        stdin,
        files: files.collect(),
        outputs: request.outputs.clone(),
    }
}

/// The order, the inputs in pieces, and the word to start.
pub(super) fn messages(
    order: JobOrder,
    payload: Payload,
) -> impl Iterator<Item = ToWorker> + use<> {
    let attempt: AttemptRef = order.attempt;
    let mut place = Place::default();
    let pieces = std::iter::from_fn(move || place.next_chunk(&payload).map(ToWorker::Input));
    std::iter::once(ToWorker::Job(Box::new(order)))
        .chain(pieces)
        .chain(std::iter::once(ToWorker::Start(attempt)))
}

#[cfg(test)]
mod tests {
    use wpool_protocol::blob::Blob;
    use wpool_protocol::id::{AttemptNumber, JobId};
    use wpool_protocol::job::InputFile;
    use wpool_protocol::limits::Limits;
    use wpool_protocol::wire::{CHUNK_MAX, InputTarget};

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
            ..JobRequest::default()
        };
        let attempt = AttemptRef {
            job: JobId(1),
            attempt: AttemptNumber::FIRST,
        };
        let of = |stdin| {
            let payload = payload(&request, &BTreeMap::new(), stdin);
            let order = payload.order(attempt, 0, Limits::DEFAULT, payload.captured());
            messages(order, payload).collect::<Vec<_>>()
        };
        let messages = of(Stdin::Request);
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
        assert_eq!(order.inputs[0].size, u64::try_from(CHUNK_MAX + 1).unwrap());
        assert_eq!(zeroth.target, InputTarget::Stdin);
        assert_eq!((first.bytes.len(), second.bytes.len()), (CHUNK_MAX, 1));
        assert_eq!(of(Stdin::Inherited).len(), messages.len() - 1);
    }
}
