//! A machine for classic BPF as seccomp uses it, and a disassembler; both for tests.
//!
//! # Invariants
//!
//! - What the kernel's checker would refuse (an unknown instruction, a jump past the end, a load out of
//!   bounds, a missing return) is an error here as well.

use std::cell::Cell;
use std::fmt::Write as _;

use wpool_sys::seccomp::SockFilter;

use super::writer::{
    AND, ARGUMENTS_OFFSET, JUMP, JUMP_ANY_BIT, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, RETURN,
};

/// One call, as a filter sees it: `struct seccomp_data`.
pub(super) struct Data {
    words: [u32; 16],
    steps_before_arguments: Cell<usize>,
}

impl Data {
    pub(super) fn new(architecture: u32, number: u32, arguments: [u64; 6]) -> Self {
        let mut words = [0; 16];
        words[0] = number;
        words[1] = architecture;
        for (index, argument) in arguments.into_iter().enumerate() {
            words[4 + 2 * index] = u32::try_from(argument & u64::from(u32::MAX)).unwrap();
            words[5 + 2 * index] = u32::try_from(argument >> 32).unwrap();
        }
        Self {
            words,
            steps_before_arguments: Cell::new(0),
        }
    }

    /// How many instructions the last run took before it first looked at an argument.
    pub(super) fn steps_before_arguments(&self) -> usize {
        self.steps_before_arguments.get()
    }
}

/// What the program returns for this call.
pub(super) fn run(program: &[SockFilter], data: &Data) -> Result<u32, String> {
    let mut accumulator = 0_u32;
    let mut at = 0;
    let mut steps = 0;
    let mut looked_at_arguments = false;
    loop {
        let instruction = program.get(at).ok_or_else(|| format!("jump to {at}"))?;
        at += 1;
        steps += 1;
        let k = instruction.k;
        let branch = |holds: bool| {
            usize::from(if holds {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        match instruction.code {
            LOAD => {
                looked_at_arguments |= k >= ARGUMENTS_OFFSET;
                let index = usize::try_from(k / 4).map_err(|error| error.to_string())?;
                let word = data.words.get(index).filter(|_| k.is_multiple_of(4));
                accumulator = *word.ok_or_else(|| format!("load of {k}"))?;
            }
            AND => accumulator &= k,
            JUMP => at += usize::try_from(k).map_err(|error| error.to_string())?,
            JUMP_EQUAL => at += branch(accumulator == k),
            JUMP_AT_LEAST => at += branch(accumulator >= k),
            JUMP_ANY_BIT => at += branch(accumulator & k != 0),
            RETURN => return Ok(k),
            other => return Err(format!("instruction {other:#x}")),
        }
        if !looked_at_arguments {
            data.steps_before_arguments.set(steps);
        }
    }
}

/// The program as people read it; jumps name the line they lead to.
pub(super) fn disassemble(program: &[SockFilter]) -> String {
    let mut text = String::new();
    for (line, instruction) in program.iter().enumerate() {
        let SockFilter { code, jt, jf, k } = *instruction;
        let yes = line + 1 + usize::from(jt);
        let no = line + 1 + usize::from(jf);
        let words = match code {
            LOAD if k == 0 => "load number".to_owned(),
            LOAD if k == 4 => "load architecture".to_owned(),
            LOAD => format!("load arg{}", (k - ARGUMENTS_OFFSET) / 8),
            AND => format!("and {k:#x}"),
            JUMP => format!("go to {}", line + 1 + usize::try_from(k).unwrap()),
            JUMP_EQUAL => format!("is {k:#x}? {yes} : {no}"),
            JUMP_AT_LEAST => format!("at least {k}? {yes} : {no}"),
            JUMP_ANY_BIT => format!("any of {k:#x}? {yes} : {no}"),
            RETURN => match k & 0xffff_0000 {
                libc::SECCOMP_RET_ALLOW => "allow".to_owned(),
                libc::SECCOMP_RET_ERRNO => format!("errno {}", k & 0xffff),
                libc::SECCOMP_RET_KILL_PROCESS => "kill".to_owned(),
                other => format!("return {other:#x}"),
            },
            other => format!("unknown {other:#x}"),
        };
        writeln!(text, "{line:>4} {words}").unwrap();
    }
    text
}
