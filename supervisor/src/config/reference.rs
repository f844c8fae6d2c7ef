//! The reference of the config, made from the keys and their comments: docs/CONFIG.md.

use std::fmt::Write as _;

use super::raw::{
    HttpSection, Key, LimitsSection, LogSection, PoolSection, ProfileSection, RetentionSection,
    TenantSection,
};

/// What stands before the keys.
const HEAD: &str = "# Config

As root, and in the packaged service, `/etc/wpool/wpool.toml`, then `/etc/wpool/conf.d/*.toml` by name; for others `$XDG_CONFIG_HOME/wpool/wpool.toml`, else
`~/.config/wpool/wpool.toml`; with `--config FILE` that file and none of these. Over the files stand variables of the
environment (`WPOOL_POOL_WORKERS=4` is `[pool] workers = 4`), over those the flags of `wpool serve`.

Sizes are numbers of bytes or texts like `\"256M\"`, durations numbers of milliseconds or texts like `\"5s\"`. An unknown key is an
error. SIGHUP reads the config again; what needs a restart is said with its key. `wpool config show` prints what holds.

This page is made from the program; a test keeps the two together.
";

/// docs/CONFIG.md.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for (section, about, keys) in [
        (
            "[pool]",
            "Slots, queue, and what happens when workers die.",
            PoolSection::KEYS,
        ),
        (
            "[limits]",
            "What a job gets that does not say what it wants.",
            LimitsSection::KEYS,
        ),
        (
            "[ceilings]",
            "The most that a job may ask for: the keys of `[limits]`.",
            &[],
        ),
        (
            "[retention]",
            "How long the outcomes of ended jobs are kept. What is oldest goes first.",
            RetentionSection::KEYS,
        ),
        (
            "[http]",
            "What clients of the control socket may take.",
            HttpSection::KEYS,
        ),
        (
            "[log]",
            "What is logged on standard error.",
            LogSection::KEYS,
        ),
        (
            "[profile.NAME]",
            "A named sandbox set-up; `default` is the one of a job that names none.",
            ProfileSection::KEYS,
        ),
        (
            "[tenant.NAME]",
            "What a tenant may take; `default` is the rule of all that have none of their own.",
            TenantSection::KEYS,
        ),
    ] {
        // Writing to a string cannot fail.
        write!(text, "\n## {section}\n\n{about}\n").unwrap_or_default();
        table(&mut text, keys);
    }
    text
}

fn table(text: &mut String, keys: &[Key]) {
    if keys.is_empty() {
        return;
    }
    text.push_str("\n| key | what it is for |\n| --- | --- |\n");
    for key in keys {
        let about = key.about.trim().replace('|', "\\|");
        writeln!(text, "| `{}` | {about} |", key.name).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_GOLDEN=1` writes the page anew.
    #[test]
    fn the_page_says_what_the_program_knows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIG.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert!(
            page == reference(),
            "docs/CONFIG.md is stale: run this test with UPDATE_GOLDEN=1"
        );
    }
}
