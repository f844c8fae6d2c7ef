//! Writes a program from its end: what a jump leads to is there before the jump.
//!
//! # Invariants
//!
//! - Every path ends in a return, and no jump leads backwards: there is nothing behind to jump to.
//! - A conditional jump reaches 255 instructions. Returns are shared within that reach and repeated beyond it;
//!   a place beyond it is reached by an unconditional jump.

use wpool_sys::seccomp::SockFilter;

use super::Range;
use crate::seccomp::table::{Answer, Case, Rule, Test};

// The fields of `struct seccomp_data` (linux/seccomp.h).
pub(super) const NUMBER_OFFSET: u32 = 0;
pub(super) const ARCHITECTURE_OFFSET: u32 = 4;
pub(super) const ARGUMENTS_OFFSET: u32 = 16;

// The instructions used, of linux/bpf_common.h.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// What a filter returns for this answer.
pub(super) fn value(answer: Answer) -> u32 {
    match answer {
        Answer::Allow => libc::SECCOMP_RET_ALLOW,
        Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno as i32).unsigned_abs(),
        // An error number of 0: the call returns 0 (seccomp(2), SECCOMP_RET_ERRNO).
        Answer::Pretend => libc::SECCOMP_RET_ERRNO,
        Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    }
}

/// Where a jump leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// To an instruction that is written.
    Place(Place),
    /// To any return of this answer.
    Answer(Answer),
}

/// A written instruction, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// How far a return is looked for: what a conditional jump reaches, less the two instructions that may
/// have to be written before the jump itself.
const REACH: usize = 253;

/// A program in the making: its last instruction comes first.
#[derive(Debug, Default)]
pub(super) struct Writer {
    reversed: Vec<SockFilter>,
}

impl Writer {
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }

    fn write(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Place {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Place(self.reversed.len() - 1)
    }

    /// How many instructions a jump written next would skip on its way there.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place.0
    }

    /// A place within reach that does the same.
    pub(super) fn resolve(&mut self, target: Target) -> Place {
        match target {
            Target::Place(place) if self.distance(place) < REACH => place,
            Target::Place(place) => {
                let distance = u32::try_from(self.distance(place))
                    .expect("a program of four thousand million instructions");
                self.write(JUMP, 0, 0, distance)
            }
            Target::Answer(answer) => {
                let k = value(answer);
                let near = self.reversed.iter().rev().take(REACH);
                let found = near
                    .enumerate()
                    .find(|(_, instruction)| instruction.code == RETURN && instruction.k == k);
                match found {
                    Some((back, _)) => Place(self.reversed.len() - 1 - back),
                    None => self.write(RETURN, 0, 0, k),
                }
            }
        }
    }

    /// Goes to one of two targets.
    pub(super) fn branch(&mut self, code: u16, k: u32, holds: Target, fails: Target) -> Place {
        let holds = self.resolve(holds);
        let fails = self.resolve(fails);
        let skip = |place| {
            u8::try_from(self.distance(place)).expect("REACH leaves room for what was resolved")
        };
        let (jt, jf) = (skip(holds), skip(fails));
        self.write(code, jt, jf, k)
    }

    /// Loads a word and goes on at `next`, which must be what was written last.
    pub(super) fn load(&mut self, offset: u32, next: Place) -> Place {
        assert_eq!(self.distance(next), 0, "a load has no jump");
        self.write(LOAD, 0, 0, offset)
    }

    /// The search for the range of the number in the accumulator, and what it leads to.
    pub(super) fn search(&mut self, ranges: &[Range]) -> Target {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let Some(middle) = high.first() else {
            // A search among nothing is never asked for: there is a range for every number.
            return Target::Answer(Answer::Kill);
        };
        if low.is_empty() {
            return self.rule(middle.rule);
        }
        let high = self.search(high);
        let low = self.search(low);
        Target::Place(self.branch(JUMP_AT_LEAST, middle.from, high, low))
    }

    fn rule(&mut self, rule: Rule) -> Target {
        match rule {
            Rule::Always(answer) => Target::Answer(answer),
            Rule::Check { cases, otherwise } => cases
                .iter()
                .rev()
                .fold(Target::Answer(otherwise), |next, case| {
                    self.case(case, next)
                }),
        }
    }

    /// Gives the case's answer if all its tests hold, else goes to the next.
    fn case(&mut self, case: &Case, next: Target) -> Target {
        case.when
            .iter()
            .rev()
            .fold(Target::Answer(case.answer), |holds, test| {
                Target::Place(self.test(*test, holds, next))
            })
    }

    fn test(&mut self, test: Test, holds: Target, fails: Target) -> Place {
        match test {
            Test::AnyBit { argument, bits } => {
                let compare = self.branch(JUMP_ANY_BIT, bits, holds, fails);
                self.load(low_word(argument), compare)
            }
            Test::OneOf {
                argument,
                mask,
                values,
            } => {
                let first = runs(values)
                    .into_iter()
                    .rev()
                    .fold(fails, |next, run| Target::Place(self.run(run, holds, next)));
                let mut first = self.resolve(first);
                if mask != u32::MAX {
                    first = self.write(AND, 0, 0, mask);
                }
                self.load(low_word(argument), first)
            }
        }
    }

    /// Whether the accumulator is one of a run of values, both ends included.
    fn run(&mut self, (low, high): (u32, u32), holds: Target, fails: Target) -> Place {
        if low == high {
            return self.branch(JUMP_EQUAL, low, holds, fails);
        }
        let from_low = self.branch(JUMP_AT_LEAST, low, holds, fails);
        match high.checked_add(1) {
            None => from_low,
            Some(behind) => self.branch(JUMP_AT_LEAST, behind, fails, Target::Place(from_low)),
        }
    }
}

/// The values as runs of neighbours, first and last.
pub(super) fn runs(values: &[u32]) -> Vec<(u32, u32)> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((_, last)) if value <= last.saturating_add(1) => *last = value,
            Some(_) | None => runs.push((value, value)),
        }
    }
    runs
}

/// Where the low word of an argument lies: it comes first, on a little-endian machine.
fn low_word(argument: u8) -> u32 {
    ARGUMENTS_OFFSET + 8 * u32::from(argument)
}
