//! The processes of a worker that no pid namespace holds together: one session, which neither it nor its jobs leave.
//!
//! A worker ends its jobs itself, and an init whose worker is gone does. What is left here is for a job that has killed both, which a
//! kernel without Landlock's scopes (before 6.12) does not prevent.

use std::fs;

use rustix::process::{Pid, Signal, kill_process_group};

/// Looks at all processes so often: each kills every group that was there, and no process forks that is about to die.
const LOOKS: usize = 8;

/// The session of a worker, ended when this is dropped.
#[derive(Debug)]
pub struct Session(u32);

impl Session {
    /// That of the worker with this pid, which is its leader.
    pub(super) const fn of(worker: u32) -> Self {
        Self(worker)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for _ in 0..LOOKS {
            let groups = groups(self.0);
            if groups.is_empty() {
                return;
            }
            for group in groups {
                match kill_process_group(group, Signal::KILL) {
                    // Whoever is gone needs no signal.
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
}

/// The process group of every living process of a session.
fn groups(session: u32) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read(entry.path().join("stat")).ok());
    stats.filter_map(|stat| group_in(&stat, session)).collect()
}

/// The group of a process by its `stat` (proc(5)), if it is in the session and has not ended.
fn group_in(stat: &[u8], session: u32) -> Option<Pid> {
    // A process chooses its own name: nothing before the last parenthesis is believed.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(stat.get(name_end + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let is_in: u32 = fields.next()?.parse().ok()?;
    // A process whose first thread has ended lives on in the others.
    let threads: u32 = fields.nth(13)?.parse().ok()?;
    let lives = is_in == session && (threads > 1 || !matches!(state, "Z" | "X"));
    Pid::from_raw(group).filter(|_| lives)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a session of programs is to be ended"
    )]
    fn a_session_is_ended_with_all_its_groups_and_nothing_else() {
        let mut outside = Command::new("sleep").arg("600").spawn().unwrap();
        let mut command = Command::new("setsid");
        command.args([
            "--wait",
            "sh",
            "-c",
            "set -m; sleep 600 & (sleep 600 &) ; echo $$; wait",
        ]);
        let mut leader = command
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = leader.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let session = line.trim().parse().unwrap();
        assert!(!groups(session).is_empty());
        drop(Session::of(session));
        assert!(groups(session).is_empty());
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
        drop(leader.wait());
    }
}
