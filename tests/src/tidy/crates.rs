//! Which crate may know which.
//!
//! ```text
//!   protocol <- pool <- supervisor -> sys        worker -> protocol, sys        tests -> everything
//! ```

use toml_edit::{DocumentMut, Item};

use super::{Repository, folder, identifiers};

/// The crates by their folder, and whom of the others they may name.
///
/// The supervisor's arrow to the worker is for the one binary alone, see [`one_binary`].
const ARROWS: [(&str, &str, &[&str]); 6] = [
    ("protocol", "wpool-protocol", &[]),
    ("supervisor/pool", "wpool-pool", &["wpool-protocol"]),
    ("worker/sys", "wpool-sys", &[]),
    ("worker", "wpool-worker", &["wpool-protocol", "wpool-sys"]),
    (
        "supervisor",
        "wpool",
        &["wpool-protocol", "wpool-pool", "wpool-sys", "wpool-worker"],
    ),
    (
        "tests",
        "wpool-tests",
        &[
            "wpool",
            "wpool-protocol",
            "wpool-pool",
            "wpool-sys",
            "wpool-worker",
        ],
    ),
];

/// Where the supervisor's package may name the worker's crate: the binary that is both, what shows the plan,
/// the birth, which must agree with the worker on descriptors, and the command line's `--out`, whose patterns
/// must match as the worker's do.
const BOTH_SIDES: [&str; 5] = [
    "supervisor/src/main.rs",
    "supervisor/src/cli/doctor.rs",
    "supervisor/src/birth.rs",
    "supervisor/src/cli/output_files.rs",
    "supervisor/src/birth/reduction.rs",
];

/// Crates that the core may depend on: none that knows a clock, a file or a thread.
const CORE_DEPENDENCIES: [&str; 3] = ["serde", "thiserror", "wpool-protocol"];

const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// The folders of all crates.
pub fn folders() -> impl Iterator<Item = &'static str> {
    ARROWS.iter().map(|(folder, _, _)| *folder)
}

fn dependencies(manifest: &DocumentMut, table: &str) -> Vec<String> {
    manifest
        .get(table)
        .and_then(Item::as_table_like)
        .map(|table| table.iter().map(|(name, _)| name.to_owned()).collect())
        .unwrap_or_default()
}

/// Arrows point inward, and every dependency is named once, at the top.
pub fn arrows(repository: &Repository) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in repository.with_extension("toml") {
        if !path.ends_with("/Cargo.toml") {
            continue;
        }
        let Ok(manifest) = text.parse::<DocumentMut>() else {
            wrong.push(format!("{path}: does not parse"));
            continue;
        };
        let Some((_, name, allowed)) = ARROWS.iter().find(|(at, _, _)| *at == folder(path)) else {
            wrong.push(format!(
                "{path}: a crate that the architecture does not name"
            ));
            continue;
        };
        let found = manifest
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(Item::as_str);
        if found != Some(name) {
            wrong.push(format!("{path}: is called {found:?}, not {name}"));
        }
        for table in DEPENDENCY_TABLES {
            for dependency in dependencies(&manifest, table) {
                let is_ours = ARROWS.iter().any(|(_, ours, _)| *ours == dependency);
                if is_ours && !allowed.contains(&dependency.as_str()) {
                    wrong.push(format!("{path}: {name} may not know {dependency}"));
                }
            }
        }
        if *name == "wpool-pool" {
            for dependency in dependencies(&manifest, "dependencies") {
                if !CORE_DEPENDENCIES.contains(&dependency.as_str()) {
                    wrong.push(format!("{path}: the core may not depend on {dependency}"));
                }
            }
        }
    }
    wrong
}

/// All crates of the architecture are members, and no others.
pub fn members(repository: &Repository) -> Vec<String> {
    let Some(Ok(manifest)) = repository.text("Cargo.toml").map(str::parse::<DocumentMut>) else {
        return vec!["Cargo.toml: is missing or does not parse".to_owned()];
    };
    let members: Vec<&str> = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(Item::as_array)
        .into_iter()
        .flatten()
        .filter_map(|member| member.as_str())
        .collect();
    let missing = ARROWS
        .iter()
        .filter(|(at, _, _)| !members.contains(at))
        .map(|(at, _, _)| format!("Cargo.toml: {at} is no member"));
    let strangers = members
        .iter()
        .filter(|member| !ARROWS.iter().any(|(at, _, _)| at == *member))
        .map(|member| {
            format!("Cargo.toml: {member} is a member that the architecture does not name")
        });
    missing.chain(strangers).collect()
}

/// The supervisor's package holds the worker because there is one binary; its library does not use it.
pub fn one_binary(repository: &Repository) -> Vec<String> {
    repository
        .with_extension("rs")
        .filter(|(path, text)| {
            path.starts_with("supervisor/src/")
                && !BOTH_SIDES.contains(path)
                && identifiers(text).any(|word| word == "wpool_worker")
        })
        .map(|(path, _)| format!("{path}: names the worker's crate; only the binary may"))
        .collect()
}

/// The core has no clock, no IO and no unsafe code.
pub fn pure_core(repository: &Repository) -> Vec<String> {
    let root = repository
        .text("supervisor/pool/src/lib.rs")
        .unwrap_or_default();
    let mut wrong: Vec<String> = ["no_std", "forbid(unsafe_code)"]
        .into_iter()
        .filter(|attribute| !root.contains(&format!("#![{attribute}")))
        .filter(|attribute| !root.contains(&format!("#![cfg_attr(not(test), {attribute}")))
        .map(|attribute| format!("supervisor/pool/src/lib.rs: is not `{attribute}`"))
        .collect();
    for (path, text) in repository.with_extension("rs") {
        if path.starts_with("supervisor/pool/src/")
            && ["std::time", "SystemTime", "std::fs", "std::thread"]
                .iter()
                .any(|outside| text.contains(outside))
        {
            wrong.push(format!("{path}: reaches outside the core"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_points_outward_is_seen() {
        let pool =
            "[package]\nname = \"wpool-pool\"\n[dependencies]\ntokio = \"1\"\nwpool-sys = \"1\"\n";
        let stranger = "[package]\nname = \"wpool-extra\"\n";
        let repository = Repository::invented(&[
            ("supervisor/pool/Cargo.toml", pool),
            ("extra/Cargo.toml", stranger),
        ]);
        let wrong = arrows(&repository);
        assert!(
            wrong
                .iter()
                .any(|line| line.contains("may not know wpool-sys"))
        );
        assert!(
            wrong
                .iter()
                .any(|line| line.contains("may not depend on tokio"))
        );
        assert!(wrong.iter().any(|line| line.starts_with("extra/")));
    }

    #[test]
    fn a_missing_member_is_seen() {
        let manifest = "[workspace]\nmembers = [\"protocol\", \"extra\"]\n";
        let wrong = members(&Repository::invented(&[("Cargo.toml", manifest)]));
        assert!(
            wrong
                .iter()
                .any(|line| line.contains("worker/sys is no member"))
        );
        assert!(wrong.iter().any(|line| line.contains("extra is a member")));
    }

    #[test]
    fn a_supervisor_that_uses_the_worker_is_seen() {
        let repository = Repository::invented(&[
            ("supervisor/src/main.rs", "wpool_worker::main()"),
            ("supervisor/src/driver.rs", "use wpool_worker::plan;"),
        ]);
        assert_eq!(one_binary(&repository).len(), 1);
    }

    #[test]
    fn a_core_with_a_clock_is_seen() {
        let repository = Repository::invented(&[
            ("supervisor/pool/src/lib.rs", "#![no_std]\n"),
            ("supervisor/pool/src/pool.rs", "use std::time::Instant;"),
        ]);
        assert_eq!(pure_core(&repository).len(), 2);
    }
}
