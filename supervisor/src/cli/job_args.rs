//! The part of the command line that describes a job; `run` and `submit` share it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use wpool_protocol::blob::Blob;
use wpool_protocol::job::{FILES_BYTES_MAX, JobRequest};
use wpool_protocol::limits::LimitsRequest;
use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::MountSetup;

use super::input_files;
use super::output_files::OutSpec;

/// What the job may use.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Wall-clock time, like 5s or 2m [default: 30s]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Millis>,
    /// CPU time of all its processes together [default: timeout × cpus]
    #[arg(long, value_name = "DURATION")]
    cpu: Option<Millis>,
    /// Time in which all use less than a thousandth of a core [default: unlimited]
    #[arg(long, value_name = "DURATION")]
    idle: Option<Millis>,
    /// Time between SIGTERM and SIGKILL when the timeout is over [default: 0]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Millis>,
    /// Memory of all its processes together, like 256M [default: 512M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Processes and threads at one time [default: 64]
    #[arg(long, value_name = "COUNT")]
    processes: Option<u32>,
    /// Open files of one process [default: 256]
    #[arg(long, value_name = "COUNT")]
    open_files: Option<u32>,
    /// Size of one file that it writes [default: 64M]
    #[arg(long, value_name = "SIZE")]
    file_size: Option<ByteSize>,
    /// Size of all files in /box, /tmp and /dev/shm together [default: 128M]
    #[arg(long, value_name = "SIZE")]
    disk: Option<ByteSize>,
    /// How much is kept of each output stream, first and last half [default: 1M]
    #[arg(long, value_name = "SIZE")]
    output_limit: Option<ByteSize>,
    /// Cores [default: 1]
    #[arg(long, value_name = "COUNT")]
    cpus: Option<u16>,
}

impl LimitArgs {
    fn request(&self) -> LimitsRequest {
        LimitsRequest {
            timeout_ms: self.timeout,
            grace_ms: self.grace,
            cpu_ms: self.cpu,
            idle_ms: self.idle,
            memory_bytes: self.memory,
            processes: self.processes,
            open_files: self.open_files,
            file_size_bytes: self.file_size,
            disk_bytes: self.disk,
            output_bytes: self.output_limit,
            cpus: self.cpus,
        }
    }
}

/// What to run, and with what.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct JobArgs {
    /// Hand in a file or a directory tree, under its own name or as NAME; `DIR:.` puts what is in DIR
    /// into /box itself
    #[arg(long = "in", value_name = "PATH[:NAME]", value_parser = OsStringValueParser::new().try_map(InSpec::parse))]
    inputs: Vec<InSpec>,
    /// Bring out a file of /box, or all that match a pattern (*, ?, [..], **), once the job has ended; `-`
    /// as PATH is standard output
    #[arg(long = "out", value_name = "NAME[:PATH]", value_parser = OsStringValueParser::new().try_map(OutSpec::parse))]
    pub(crate) outputs: Vec<OutSpec>,
    /// Set an environment variable of the job
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// What the job reads on its standard input; `-` is that of wpool
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// The sandbox set-up, by its name in the config
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    // Last, because its heading holds for all that follow it.
    #[command(flatten)]
    limits: LimitArgs,
}

impl JobArgs {
    /// The job, without its standard input.
    pub(crate) fn request(&self) -> anyhow::Result<JobRequest> {
        anyhow::ensure!(
            !self.command.is_empty(),
            "no command is given: write it after `--`"
        );
        Ok(JobRequest {
            command: self.command.clone(),
            profile: self.profile.clone(),
            files: input_files::read(&self.inputs)?,
            outputs: self
                .outputs
                .iter()
                .map(|output| output.pattern.clone())
                .collect(),
            env: without_repetition("--env", &self.env)?,
            limits: self.limits.request(),
            ..JobRequest::default()
        })
    }

    /// The whole of what `--stdin` names.
    pub(crate) fn read_stdin(&self) -> anyhow::Result<Option<Blob>> {
        let Some(path) = &self.stdin else {
            return Ok(None);
        };
        let bytes = if path == Path::new("-") {
            read_bounded(&mut io::stdin().lock()).context("failed to read standard input")?
        } else {
            let open = || format!("failed to read {}", path.display());
            let mut file = File::open(path).with_context(open)?;
            read_bounded(&mut file).with_context(open)?
        };
        Ok(Some(Blob(bytes)))
    }
}

fn read_bounded(source: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(FILES_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(
        u64::try_from(bytes.len())? <= FILES_BYTES_MAX,
        "it is longer than {}, the most a job can be handed in",
        ByteSize(FILES_BYTES_MAX)
    );
    Ok(bytes)
}

/// `NAME=VALUE`, taken apart.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The pairs as a map, if no name comes twice.
pub(crate) fn without_repetition(
    option: &str,
    pairs: &[(String, String)],
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        anyhow::ensure!(
            map.insert(name.clone(), value.clone()).is_none(),
            "{option} {name} is given twice: leave one out"
        );
    }
    Ok(map)
}

/// `--in PATH[:NAME]`. The last colon separates, unless only all of it together is the path of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InSpec {
    /// What to read.
    pub(crate) path: PathBuf,
    /// Its name in the box: `.` for the box itself, `None` for the last component of its path.
    pub(crate) name: Option<String>,
}

impl InSpec {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "clap hands the value over to its parser"
    )]
    fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let is_there = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).exists();
        let colon = bytes.iter().rposition(|&byte| byte == b':');
        let colon = colon.filter(|&colon| {
            let before = bytes.get(..colon).unwrap_or_default();
            is_there(before) || !is_there(bytes)
        });
        let (path, name) = match colon {
            None => (bytes, None),
            Some(colon) => (
                bytes.get(..colon).unwrap_or_default(),
                bytes.get(colon + 1..),
            ),
        };
        if path.is_empty() {
            return Err("expected a path before the colon".to_owned());
        }
        let name = name
            .map(|name| {
                String::from_utf8(name.to_vec()).map_err(|_| "the name is not UTF-8".to_owned())
            })
            .transpose()?;
        if name.as_deref() == Some("") {
            return Err("expected a name after the colon; `.` is /box itself".to_owned());
        }
        Ok(Self {
            path: PathBuf::from(OsStr::from_bytes(path)),
            name,
        })
    }
}

/// `--ro PATH[:DEST]`: a host path, visible to the job at the same place or at another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadOnlySpec {
    /// What to show; as given.
    path: PathBuf,
    /// Where; absolute.
    destination: Option<PathBuf>,
}

impl ReadOnlySpec {
    /// The last `:/` separates: what follows is absolute anyway.
    pub(crate) fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.into_vec();
        let colon = bytes.windows(2).rposition(|pair| pair == b":/");
        let (path, destination) = match colon {
            None => (bytes.as_slice(), None),
            Some(colon) => (
                bytes.get(..colon).unwrap_or_default(),
                bytes.get(colon + 1..),
            ),
        };
        if path.is_empty() {
            return Err("expected a path before the colon".to_owned());
        }
        Ok(Self {
            path: PathBuf::from(OsStr::from_bytes(path)),
            destination: destination.map(|path| PathBuf::from(OsStr::from_bytes(path))),
        })
    }

    /// The absolute path of what is shown, and where.
    pub(crate) fn resolve(&self) -> anyhow::Result<(PathBuf, String)> {
        let path = std::path::absolute(&self.path)
            .with_context(|| format!("failed to find {}", self.path.display()))?;
        std::fs::metadata(&path)
            .with_context(|| format!("failed to find {}", self.path.display()))?;
        let destination = self.destination.clone().unwrap_or_else(|| path.clone());
        let plain = destination.components().skip(1).all(|component| {
            matches!(component, std::path::Component::Normal(name) if name.to_str().is_some())
        });
        anyhow::ensure!(
            plain && destination.components().count() > 1,
            "{} cannot be a place in the sandbox: name an absolute path without `..`, like --ro {}:/opt/data",
            destination.display(),
            self.path.display()
        );
        let destination = destination.to_str().context("its name is not UTF-8")?;
        // By its real name: a link to / is / as well.
        let real = std::fs::canonicalize(&path)
            .with_context(|| format!("failed to find {}", self.path.display()))?;
        if let Some(reason) = MountSetup::unfit_to_show(&real.to_string_lossy()) {
            anyhow::bail!("{} cannot be shown: {reason}", self.path.display());
        }
        if let Some(place) = MountSetup::in_the_way(destination) {
            anyhow::bail!(
                "{destination} would hide or be hidden by {place} of the sandbox: name another place, like --ro {}:/opt/data",
                self.path.display()
            );
        }
        Ok((path, destination.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<String>) {
        let spec = InSpec::parse(text.into()).unwrap();
        (spec.path.to_str().unwrap().to_owned(), spec.name)
    }

    #[test]
    fn the_last_colon_of_an_input_separates() {
        assert_eq!(parsed("a.py"), ("a.py".into(), None));
        assert_eq!(
            parsed("a.py:b/c.py"),
            ("a.py".into(), Some("b/c.py".into()))
        );
        assert_eq!(parsed("a:b:c"), ("a:b".into(), Some("c".into())));
        assert_eq!(parsed("dir:."), ("dir".into(), Some(".".into())));
        assert!(InSpec::parse(":x".into()).is_err());
        assert!(InSpec::parse("x:".into()).is_err());
    }

    #[test]
    fn a_read_only_path_appears_where_it_lies_or_where_it_is_told() {
        let same = ReadOnlySpec::parse("/var".into()).unwrap().resolve();
        assert!(same.is_err(), "/var is the sandbox's own");
        let same = ReadOnlySpec::parse("/var/lib".into()).unwrap().resolve();
        assert_eq!(same.unwrap(), ("/var/lib".into(), "/var/lib".into()));
        let other = ReadOnlySpec::parse("/usr:/opt/x".into()).unwrap().resolve();
        assert_eq!(other.unwrap(), ("/usr".into(), "/opt/x".into()));
        for text in [
            "/usr:/",
            "/usr:/opt/../etc",
            "/nowhere-at-all",
            "/usr",
            "/:/host",
        ] {
            let spec = ReadOnlySpec::parse(text.into()).unwrap();
            assert!(spec.resolve().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_needs_a_name_and_comes_once() {
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(pair("=b").is_err());
        assert!(pair("A").is_err());
        let twice = [("A".into(), "1".into()), ("A".into(), "2".into())];
        assert!(without_repetition("--env", &twice).is_err());
    }
}
