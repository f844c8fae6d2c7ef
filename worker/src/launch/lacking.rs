//! Why a program that is there cannot be found: the kernel says `ENOENT` of a program, too, whose link has no target or whose
//! interpreter is not in the sandbox.
//!
//! # Invariants
//!
//! - The file may be the job's own: what is read of it is bounded, and what it says is only told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Links and interpreters that are followed, one through the other; the kernel follows 40 links and 5 interpreters.
const STEPS_MAX: usize = 16;

/// What the kernel looks at of a script's first line (`BINPRM_BUF_SIZE`).
const FIRST_LINE_MAX: usize = 256;

/// Bytes of a path (`PATH_MAX`).
const PATH_MAX: u64 = 4_096;

/// Program headers that are looked through.
const HEADERS_MAX: u16 = 64;

/// The file that `program`, which is there, needs to start, and that is not; `None` if it is something else.
pub(super) fn lacking(program: &Path) -> Option<PathBuf> {
    let mut path = program.to_owned();
    let mut is_there = false;
    for _ in 0..STEPS_MAX {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return is_there.then_some(path);
        };
        is_there = true;
        path = if metadata.is_symlink() {
            let target = fs::read_link(&path).ok()?;
            path.parent()?.join(target)
        } else if metadata.is_file() {
            interpreter(&path).ok()??
        } else {
            return None;
        };
    }
    None
}

/// What the kernel starts in the place of a file.
fn interpreter(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut options = OpenOptions::new();
    let nonblocking = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = options
        .read(true)
        .custom_flags(nonblocking.bits())
        .open(path)?;
    let mut start = [0; FIRST_LINE_MAX];
    let len = read_up_to(&file, &mut start)?;
    let start = start.get(..len).unwrap_or_default();
    match start {
        [b'#', b'!', line @ ..] => Ok(of_script(line)),
        [0x7f, b'E', b'L', b'F', ..] => of_elf(&file, start),
        _ => Ok(None),
    }
}

fn read_up_to(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

/// The first word after `#!`.
fn of_script(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.find(|word| !word.is_empty()).map(path)
}

/// What a 64-bit little-endian ELF file names as its dynamic linker: elf(5), `PT_INTERP`.
fn of_elf(file: &File, head: &[u8]) -> io::Result<Option<PathBuf>> {
    const PROGRAM_HEADER_LEN: u64 = 56;
    const PT_INTERP: u32 = 3;
    let Some((table, count)) = u64_at(head, 32).zip(u16_at(head, 56)) else {
        return Ok(None);
    };
    for n in 0..count.min(HEADERS_MAX) {
        let mut header = [0; 56];
        let at = table.saturating_add(u64::from(n) * PROGRAM_HEADER_LEN);
        file.read_exact_at(&mut header, at)?;
        if header.first_chunk() != Some(&PT_INTERP.to_le_bytes()) {
            continue;
        }
        let Some((at, len)) = u64_at(&header, 8).zip(u64_at(&header, 32)) else {
            return Ok(None);
        };
        let mut name = vec![0; usize::try_from(len.min(PATH_MAX)).unwrap_or(0)];
        file.read_exact_at(&mut name, at)?;
        return Ok(name.split(|byte| *byte == 0).next().map(path));
    }
    Ok(None)
}

fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;

    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(lacking(&at("nothing")), None);

        symlink("beside", at("link")).unwrap();
        symlink(at("link"), at("link-to-link")).unwrap();
        assert_eq!(lacking(&at("link-to-link")), Some(at("beside")));

        fs::write(at("script"), "#! /no/such/interpreter -x\necho").unwrap();
        symlink("script", at("link-to-script")).unwrap();
        let interpreter = Some(PathBuf::from("/no/such/interpreter"));
        assert_eq!(lacking(&at("link-to-script")), interpreter);

        // This very test is a program, with a linker that is there.
        let own = std::env::current_exe().unwrap();
        assert_eq!(lacking(&own), None);
        let mut bytes = fs::read(&own).unwrap();
        let linker = b"/lib64/ld-linux-x86-64.so.2\0";
        let found = bytes
            .windows(linker.len())
            .position(|window| window == linker);
        if let Some(found) = found {
            bytes[found + 1] = b'L';
            fs::write(at("program"), bytes).unwrap();
            let missing = PathBuf::from("/Lib64/ld-linux-x86-64.so.2");
            assert_eq!(lacking(&at("program")), Some(missing));
        }
    }

    #[test]
    fn a_file_that_is_made_to_mislead_is_read_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("round", at("round")).unwrap();
        assert_eq!(lacking(&at("round")), None);
        fs::write(at("self"), format!("#!{}", at("self").display())).unwrap();
        assert_eq!(lacking(&at("self")), None);
        let mut elf = b"\x7fELF".to_vec();
        elf.resize(64, 0xff);
        fs::write(at("elf"), &elf).unwrap();
        assert_eq!(lacking(&at("elf")), None);
        fs::write(at("short"), b"\x7fELF").unwrap();
        assert_eq!(lacking(&at("short")), None);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(lacking(&at("fifo")), None);
    }
}
