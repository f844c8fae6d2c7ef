//! Where the config comes from, and which word of it is the last.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use toml_edit::de::Error as TomlError;

use super::raw::RawConfig;
use super::{Config, ConfigError, usable_cores};

/// Where the config comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A file that somebody named: the only one then.
    pub file: Option<PathBuf>,
    /// What the command line says.
    pub flags: Flags,
}

/// What the command line may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--workers`
    pub workers: Option<u16>,
}

/// The config that holds: defaults, files, environment, flags.
///
/// # Errors
///
/// [`ConfigError`] is one line that says what to do.
pub fn load(source: &Source) -> Result<Config, ConfigError> {
    let files = match &source.file {
        Some(named) => vec![named.clone()],
        None => usual_files(),
    };
    let mut raw = RawConfig::default();
    for file in files {
        raw = raw.overlaid(read(&file)?);
    }
    raw = raw.overlaid(environment(std::env::vars_os())?);
    if source.flags.workers.is_some() {
        raw.pool.workers = source.flags.workers;
    }
    let (_, cores) = usable_cores();
    Config::from_raw(raw, cores)
}

/// What one file says.
///
/// # Errors
///
/// [`ConfigError`] is one line that names the file and the line.
pub fn read(path: &Path) -> Result<RawConfig, ConfigError> {
    let text = text_of(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    toml_edit::de::from_str(&text).map_err(|error| in_place(path, &text, &error))
}

/// The files that are there where configs are: of the packaged service its own (`CONFIGURATION_DIRECTORY`, systemd.exec(5)), of root the
/// machine's, of anybody else the user's. Another service's directory is not ours.
fn usual_files() -> Vec<PathBuf> {
    let of_service = std::env::var_os("CONFIGURATION_DIRECTORY");
    let is_ours = |dir: &PathBuf| dir.is_absolute() && dir.ends_with("wpool");
    let of_service = of_service.and_then(|list| std::env::split_paths(&list).find(is_ours));
    let is_root = rustix::process::geteuid().is_root();
    let of_root = is_root.then(|| PathBuf::from("/etc/wpool"));
    let Some(directory) = of_service.or(of_root) else {
        let dir = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        let file = dir.map(|dir| dir.join("wpool/wpool.toml"));
        return file.into_iter().filter(|file| is_there(file)).collect();
    };
    files_in(&directory)
}

/// `wpool.toml` of a directory, and its drop-ins.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let main = Some(directory.join("wpool.toml")).filter(|file| is_there(file));
    main.into_iter()
        .chain(drop_ins(&directory.join("conf.d")))
        .collect()
}

/// Whether there is something: what cannot be looked at is taken for a file, and its reading fails with the reason.
fn is_there(path: &Path) -> bool {
    let looked = fs::metadata(path);
    !looked.is_err_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    })
}

/// The files of a drop-in directory, by name.
fn drop_ins(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Some(dir.to_owned())
            .filter(|dir| is_there(dir))
            .into_iter()
            .collect();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

/// What `WPOOL_SECTION_KEY` variables say.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<RawConfig, ConfigError> {
    let mut raw = RawConfig::default();
    for (name, value) in variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        let Some((section, key)) = section_and_key(name) else {
            continue;
        };
        let value = as_toml(value);
        let text = format!("[{section}]\n{key} = {value}\n");
        let one = toml_edit::de::from_str(&text).map_err(|error| ConfigError::Malformed {
            place: "the environment".to_owned(),
            key: format!("{name}: "),
            problem: one_line(error.message()),
        })?;
        raw = raw.overlaid(one);
    }
    Ok(raw)
}

/// `WPOOL_POOL_QUEUE_JOBS` is `pool` and `queue_jobs`; what names no section is not ours.
fn section_and_key(variable: &str) -> Option<(&'static str, String)> {
    let rest = variable.strip_prefix("WPOOL_")?.to_ascii_lowercase();
    RawConfig::SECTIONS.iter().find_map(|(section, _)| {
        let key = rest.strip_prefix(section)?.strip_prefix('_')?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (!key.is_empty() && key.bytes().all(plain)).then(|| (*section, key.to_owned()))
    })
}

/// The value of a variable: a number where it is one, else a text.
fn as_toml(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => toml_edit::Value::from(value).to_string(),
    }
}

/// An error in a file, with the line and the key that stand there.
fn in_place(path: &Path, text: &str, error: &TomlError) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let key = key_at(text, line);
    ConfigError::Malformed {
        place: format!("{}:{line}", path.display()),
        key: key.map(|key| format!("{key}: ")).unwrap_or_default(),
        problem: one_line(error.message()),
    }
}

/// The key that a line (counted from 1) is about, with its section.
fn key_at(text: &str, line: usize) -> Option<String> {
    let mut section = "";
    let mut key = None;
    for text in text.lines().take(line) {
        let text = text.trim();
        if let Some(header) = text.strip_prefix('[') {
            section = header.split(']').next().unwrap_or_default().trim();
            key = None;
        } else if let Some((name, _)) = text.split_once('=') {
            key = Some(name.trim());
        }
    }
    match (section, key) {
        ("", key) => key.map(str::to_owned),
        (section, None) => Some(section.to_owned()),
        (section, Some(key)) => Some(format!("{section}.{key}")),
    }
}

fn one_line(text: &str) -> String {
    text.trim().replace('\n', "; ")
}

/// Bytes of a config, at most.
const BYTES_MAX: u64 = 1 << 20;

/// The text of a config: of a regular file that is not huge. Anything else could keep whoever reads it waiting for ever.
fn text_of(path: &Path) -> io::Result<String> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // O_NONBLOCK: a pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return refuse("it is no regular file");
    }
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > BYTES_MAX {
        return refuse("it is larger than 1 MiB");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wpool.toml");
        fs::write(&path, text).unwrap();
        let error = read(&path).unwrap_err().to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn an_error_names_file_line_and_key_in_one_line() {
        assert_eq!(
            error_of("[pool]\nqueue_jobs = 5\nqueue_bytes = \"lots\"\n"),
            "wpool.toml:3: pool.queue_bytes: `lots` is not a size: expected a whole number with an optional unit, like 65536, 64K, 256M or 2G"
        );
        let unknown = error_of("\n[http]\nconections_max = 5\n");
        assert!(unknown.starts_with("wpool.toml:3: http.conections_max: unknown field `conections_max`, expected one of `connections_max`"), "{unknown}");
        let broken = error_of("[pool\n");
        assert!(broken.starts_with("wpool.toml:1: "), "{broken}");
        assert!(!broken.contains('\n'), "{broken}");
        let negative = error_of("[pool]\nsilence_max_ms = -5\n");
        assert!(negative.contains("a number of milliseconds"), "{negative}");
    }

    #[test]
    fn the_environment_is_over_files_and_knows_its_keys() {
        let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let raw = environment(
            [
                variable("WPOOL_POOL_QUEUE_JOBS", "7"),
                variable("WPOOL_LIMITS_MEMORY_BYTES", "64M"),
                variable("WPOOL_HTTP_GROUP", "a \"b\""),
                variable("WPOOL_SOCKET", "/x"),
                variable("PATH", "/bin"),
            ]
            .into_iter(),
        )
        .unwrap();
        assert_eq!(raw.pool.queue_jobs, Some(7));
        assert_eq!(raw.limits.memory_bytes.unwrap().0.0, 64 << 20);
        assert_eq!(raw.http.group.as_deref(), Some("a \"b\""));
        let error = environment([variable("WPOOL_POOL_COLOUR", "red")].into_iter());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("WPOOL_POOL_COLOUR: unknown field `colour`"),
            "{error}"
        );
    }

    #[test]
    fn drop_ins_come_by_name_and_the_later_wins() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("20.toml"), "[pool]\nworkers = 2\n").unwrap();
        fs::write(
            dir.path().join("10.toml"),
            "[pool]\nworkers = 1\nqueue_jobs = 9\n",
        )
        .unwrap();
        fs::write(dir.path().join("readme.txt"), "not ours").unwrap();
        let mut raw = RawConfig::default();
        for file in drop_ins(dir.path()) {
            raw = raw.overlaid(read(&file).unwrap());
        }
        assert_eq!((raw.pool.workers, raw.pool.queue_jobs), (Some(2), Some(9)));
    }
}
