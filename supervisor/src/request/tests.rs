//! Requests become orders under a config, or one clear refusal.

use wpool_protocol::blob::Blob;
use wpool_protocol::id::{AttemptNumber, AttemptRef};
use wpool_protocol::job::RetryOn;
use wpool_protocol::limits::LimitsRequest;
use wpool_protocol::quantity::ByteSize;
use wpool_protocol::wire::Stdio;

use super::*;
use crate::config::raw::LimitsSection;

fn caller(role: Role) -> Caller {
    Caller {
        tenant: "uid:1000".into(),
        role,
    }
}

fn config() -> Config {
    let mut config = Config::default_for(1);
    let data = Profile {
        env: BTreeMap::from([("LANG".into(), "C".into()), ("DATA".into(), "/srv".into())]),
        users: Some(vec!["uid:7".into()]),
        own_ceilings: LimitsSection {
            processes: Some(2),
            ..LimitsSection::default()
        },
        ..Profile::default()
    };
    config.profiles.insert("data".into(), data);
    config
}

fn request() -> JobRequest {
    JobRequest {
        command: vec!["python3".into(), "-c".into(), "print(1)".into()],
        stdin: Some(Blob(vec![0; 100])),
        ..JobRequest::default()
    }
}

fn submit(request: JobRequest) -> Result<ResolvedJob, RequestError> {
    resolve(request, &caller(Role::Submitter), &config())
}

#[test]
fn a_plain_job_gets_the_defaults() {
    let job = submit(request()).unwrap();
    assert_eq!(job.tenant.as_ref(), "uid:1000");
    assert_eq!(job.attempts_max, 3);
    assert_eq!(job.retry_on, RetryRule::WORKER_LOST);
    assert_eq!(job.limits.memory_bytes, ByteSize::mib(512));
    assert_eq!(job.command.as_ref(), "python3 -c print(1)");
    assert!(job.bytes > 100 + JOB_OVERHEAD);
    let with_end_of_64 = Duration::from_millis(30_000 + 2 * 64);
    assert_eq!(job.for_pool(JobId(1)).run_time_max, with_end_of_64);
    let attempt = AttemptRef {
        job: JobId(1),
        attempt: AttemptNumber::FIRST,
    };
    let order = job
        .payload
        .order(attempt, 0, job.limits, job.payload.captured());
    assert_eq!(order.stdio, Stdio::Captured { stdin_bytes: 100 });
    assert!(order.env.contains(&("HOME".into(), "/box".into())));
}

#[test]
fn only_an_administrator_names_another_tenant() {
    let foreign = || JobRequest {
        tenant: Some("acme".into()),
        ..request()
    };
    let refused = submit(foreign()).unwrap_err().to_string();
    assert!(refused.contains("uid:1000"), "{refused}");
    let job = resolve(foreign(), &caller(Role::Admin), &config()).unwrap();
    assert_eq!(job.tenant.as_ref(), "acme");
    let own = JobRequest {
        tenant: Some("uid:1000".into()),
        ..request()
    };
    assert!(submit(own).is_ok());
}

#[test]
fn a_profile_is_known_allowed_and_has_its_own_limits() {
    let with = |profile: &str| JobRequest {
        profile: Some(profile.into()),
        env: BTreeMap::from([("LANG".into(), "de".into())]),
        ..request()
    };
    let unknown = submit(with("nope")).unwrap_err().to_string();
    assert!(unknown.ends_with("there are: default"), "{unknown}");
    assert!(matches!(
        submit(with("data")),
        Err(RequestError::ForbiddenProfile { .. })
    ));
    let job = resolve(with("data"), &caller(Role::Admin), &config()).unwrap();
    assert_eq!(job.limits.processes, 2);
    let value = |name: &str| {
        let mut env = job.payload.env.iter();
        env.find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!((value("LANG"), value("DATA")), (Some("de"), Some("/srv")));
}

#[test]
fn an_absurd_limit_and_an_impossible_field_are_named() {
    let absurd = JobRequest {
        limits: LimitsRequest {
            memory_bytes: Some(ByteSize::gib(1 << 20)),
            ..LimitsRequest::default()
        },
        ..request()
    };
    let error = submit(absurd).unwrap_err().to_string();
    assert!(
        error.starts_with("limits.memory_bytes is 1024 TiB"),
        "{error}"
    );
    let empty = submit(JobRequest::default()).unwrap_err().to_string();
    assert!(empty.starts_with("command: "), "{empty}");
}

#[test]
fn no_retry_means_quarantine_at_the_first_loss() {
    let with = |retry_on| JobRequest {
        retry_on,
        ..request()
    };
    let job = submit(with(Some(vec![]))).unwrap();
    assert_eq!(job.retry_on, RetryRule::NEVER);
    let job = submit(with(Some(vec![RetryOn::WorkerLost]))).unwrap();
    assert_eq!(job.retry_on, RetryRule::WORKER_LOST);
}

#[test]
fn the_same_request_has_the_same_mark() {
    let with = |command: &str| JobRequest {
        command: vec![command.into()],
        idempotency_key: Some("k".into()),
        ..request()
    };
    let key = |command| submit(with(command)).unwrap().key.unwrap();
    assert_eq!(key("a"), key("a"));
    assert_ne!(key("a").1, key("b").1);
}

#[test]
fn a_long_command_is_cut_in_listings_at_a_character() {
    let text = summary(&["ü".repeat(500), "x".into()]);
    assert_eq!(text.chars().count(), COMMAND_SHOWN_MAX);
    assert!(text.ends_with('…'));
}

#[test]
fn nothing_that_a_job_holds_is_free() {
    let bytes = |request: JobRequest| {
        let job = resolve(request, &caller(Role::Admin), &config());
        job.unwrap().bytes
    };
    let plain = || JobRequest {
        command: vec!["x".to_owned()],
        ..JobRequest::default()
    };
    let none = bytes(plain());
    let many = || std::iter::repeat_n(String::new(), 1_000);
    let arguments = JobRequest {
        command: std::iter::once("x".to_owned()).chain(many()).collect(),
        ..plain()
    };
    assert!(bytes(arguments) >= none + 1_000 * size_of::<String>() as u64);
    let labels = (0..9).map(|n| (n.to_string(), String::new())).collect();
    let labels = JobRequest { labels, ..plain() };
    assert!(bytes(labels) > none);
    let outputs = JobRequest {
        outputs: vec!["out".to_owned()],
        ..plain()
    };
    assert!(bytes(outputs) > none);
}
