//! The config in all its layers: what is refused, what is merged, what is shown.

use proptest::prelude::*;
use wpool_protocol::limits::LimitsRequest;
use wpool_protocol::quantity::{ByteSize, Millis};

use super::raw::RawConfig;
use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let raw: RawConfig = toml_edit::de::from_str(text).expect("the text is a config");
    Config::from_raw(raw, 4)
}

const FULL: &str = r#"
[pool]
workers = 3
queue_bytes = "64M"
silence_max_ms = "2s"
isolation = "required"

[limits]
timeout_ms = "5s"

[ceilings]
memory_bytes = "1G"
timeout_ms = "10s"

[retention]
outcomes_count = 5

[log]
level = "debug"
format = "json"

[profile.data]
mounts = ["/opt/venv", "/data/sets:/srv/data"]
env = { LANG = "C" }
file_roots = ["/srv/in"]
users = ["uid:1000"]
ceilings = { memory_bytes = "2G", output_bytes = "32M" }
limits = { memory_bytes = "2G" }
"#;

#[test]
fn what_is_written_is_what_it_means() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.pool.slots, 3);
    assert_eq!(config.pool.queue_bytes, 64 << 20);
    assert_eq!(config.pool.silence_max, Duration::from_secs(2));
    assert_eq!(config.isolation, IsolationPolicy::Required);
    let data = &config.profiles["data"];
    assert_eq!(data.mounts[0], ("/opt/venv".into(), "/opt/venv".to_owned()));
    assert_eq!(
        data.mounts[1],
        ("/data/sets".into(), "/srv/data".to_owned())
    );
    assert_eq!(config.limits_of(data).memory_bytes, ByteSize::gib(2));
    assert_eq!(config.limits_of(data).timeout_ms, Millis(5_000));
    assert_eq!(config.ceilings_of(data).timeout_ms, Millis(10_000));
    assert_eq!(config.output_bytes_max(), 32 << 20);
    assert_eq!(config.profile_names(), ["default", "data"]);
}

#[test]
fn one_worker_per_core_where_nothing_is_said() {
    assert_eq!(parse("").unwrap().pool.slots, 4);
    assert_eq!(
        Config::from_raw(RawConfig::default(), 0)
            .unwrap()
            .pool
            .slots,
        1
    );
}

#[test]
fn what_cannot_be_is_refused_by_its_key() {
    for (text, key) in [
        ("[pool]\nworkers = 0", "pool.workers"),
        ("[pool]\nqueue_jobs = 0", "pool.queue_jobs"),
        ("[pool]\nshare_period = 2", "pool.share_period"),
        (
            "[pool]\nbackoff_min_ms = \"1h\"",
            "pool.backoff_min_ms: it is above pool.backoff_max_ms",
        ),
        (
            "[limits]\nmemory_bytes = \"2G\"\n[ceilings]\nmemory_bytes = \"1G\"",
            "limits.memory_bytes",
        ),
        ("[ceilings]\ncpus = 0", "ceilings.cpus"),
        (
            "[http]\nheader_bytes_max = 100",
            "http.header_bytes_max: it is 100 and must be at least 8192",
        ),
        (
            "[profile.x]\nmounts = [\"opt\"]",
            "profile.x.mounts: `opt` must be an absolute path",
        ),
        (
            "[profile.x]\nmounts = [\"/a:/b/../c\"]",
            "profile.x.mounts: `/b/../c`",
        ),
        ("[profile.x]\nfile_roots = [\"/\"]", "profile.x.file_roots"),
        (
            "[profile.x.limits]\ntimeout_ms = \"48h\"",
            "profile.x.limits.timeout_ms",
        ),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(key), "{text}: {error}");
    }
}

#[test]
fn every_section_documents_each_key_and_what_it_defaults_to() {
    for (section, keys) in RawConfig::SECTIONS {
        assert!(!keys.is_empty());
        for key in *keys {
            assert!(key.about.len() > 10, "{section}.{}", key.name);
        }
    }
}

#[test]
fn a_reload_changes_limits_and_names_what_needs_a_restart() {
    let mut old = parse(FULL).unwrap();
    old.isolation = IsolationPolicy::Reduced;
    let new = parse(
        "[pool]\nworkers = 9\nqueue_jobs = 3\n[retention]\noutcomes_count = 7\n[profile.data]\nmounts = [\"/x\"]\n[profile.new]\n[ceilings]\noutput_bytes = \"1G\"",
    )
    .unwrap();
    let reload = old.reloaded(new);
    assert_eq!(reload.config.pool.slots, 9);
    assert_eq!(reload.config.pool.queue_jobs, 3);
    assert_eq!(reload.config.retention.count, 7);
    assert_eq!(
        reload.config.profiles["data"].mounts,
        old.profiles["data"].mounts
    );
    assert!(reload.config.output_bytes_max() <= old.output_bytes_max());
    assert_eq!(
        reload.need_restart,
        [
            "pool.isolation",
            "log.level",
            "log.format",
            "profile.data.mounts",
            "profile.new",
            "ceilings.output_bytes"
        ]
    );
    let same = old.reloaded(old.clone());
    assert_eq!((same.config, same.need_restart), (old, vec![]));
}

#[test]
fn a_default_above_a_ceiling_is_cut_and_one_that_is_said_refused() {
    let config = parse("[ceilings]\nmemory_bytes = \"64M\"").unwrap();
    let limits = LimitsRequest::default()
        .resolve(&config.limits, &config.ceilings)
        .unwrap();
    assert_eq!(limits.memory_bytes, ByteSize::mib(64));
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_as_the_same_config(
        workers in 1u16..100,
        queue_bytes in 1u64..,
        silence in 10u64..10_000_000,
        timeout in 1u64..86_400_000,
        count: u64,
        group in prop::option::of("[a-z \"\\\\]{1,9}"),
        mount in "/[a-z]{1,9}",
        value in "[ -~]{0,20}",
    ) {
        let count = count >> 1;
        let queue_bytes = queue_bytes >> 1 | 1;
        let mut config = parse(FULL).unwrap();
        config.pool.slots = workers;
        config.pool.queue_bytes = queue_bytes;
        config.pool.silence_max = Duration::from_millis(silence);
        config.ceilings.timeout_ms = Millis(timeout);
        config.limits.timeout_ms = Millis(timeout.min(5_000));
        config.retention.count = count;
        config.http.group = group;
        let data = config.profiles.get_mut("data").unwrap();
        data.mounts.push((mount.clone().into(), mount));
        data.env.insert("X".into(), value);
        let shown = config.to_toml();
        let again = parse(&shown);
        prop_assert_eq!(again.unwrap(), config, "{}", shown);
    }
}
