//! From the table to a classic BPF program: pure, and the same for the same table.
//!
//! ```text
//!   architecture? ──other──▶ kill
//!        │
//!   number < middle? ──▶ … ──▶ a range of numbers with one answer ──▶ return it
//!        │                │
//!        …                └──▶ a number whose arguments count ──▶ case, case, …, otherwise
//! ```
//!
//! Neighbouring numbers with the same answer are one range; the ranges are the leaves of a balanced tree, so
//! that a call is decided after about seven comparisons. Numbers from x32 on are ranges like others.
//!
//! # Invariants
//!
//! - Every path ends in a return: blocks are put together from their ends, so that a jump's target
//!   exists before the jump is written.
//! - Conditional jumps reach 255 instructions; a branch that is longer is reached by an unconditional jump.
//! - The program is at most [`INSTRUCTIONS_MAX`] long.

use wpool_sys::seccomp::{INSTRUCTIONS_MAX, SockFilter};

use super::table::{
    ARCHITECTURE, Accounting, Answer, Case, DEFAULT, FOREIGN_FROM, Row, Rule, Table, Test,
};

#[cfg(test)]
mod machine;

/// A filter, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<SockFilter>,
}

impl Program {
    /// The filter of jobs under this accounting.
    pub fn new(accounting: Accounting) -> Self {
        Self::compile(&Table::new(accounting))
    }

    /// The filter that answers as the table says.
    ///
    /// # Panics
    ///
    /// If the table makes a program that the kernel would not take: it is ours, and a test compiles it.
    pub fn compile(table: &Table) -> Self {
        let mut instructions = vec![
            load(ARCHITECTURE_OFFSET),
            jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
            give(Answer::Kill),
            load(NUMBER_OFFSET),
        ];
        instructions.extend(tree(&ranges(table)));
        assert!(
            instructions.len() <= INSTRUCTIONS_MAX,
            "the filter has {} instructions",
            instructions.len()
        );
        Self { instructions }
    }

    /// The instructions, in order.
    pub fn instructions(&self) -> &[SockFilter] {
        &self.instructions
    }
}

// The fields of `struct seccomp_data` (linux/seccomp.h).
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

// The instructions used, of linux/bpf_common.h.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

fn load(offset: u32) -> SockFilter {
    SockFilter {
        code: LOAD,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

/// A conditional jump over so many instructions.
fn jump(code: u16, k: u32, holds: usize, fails: usize) -> SockFilter {
    let distance = |skip| u8::try_from(skip).expect("a conditional jump over more than 255");
    SockFilter {
        code,
        jt: distance(holds),
        jf: distance(fails),
        k,
    }
}

fn give(answer: Answer) -> SockFilter {
    let k = match answer {
        Answer::Allow => libc::SECCOMP_RET_ALLOW,
        Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno as i32).unsigned_abs(),
        // An error number of 0: the call returns 0 (seccomp(2), SECCOMP_RET_ERRNO).
        Answer::Pretend => libc::SECCOMP_RET_ERRNO,
        Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    SockFilter {
        code: RETURN,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Numbers from `from` up to the next range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u32,
    rule: Rule,
}

/// All numbers there are, as ranges with one rule each, in order.
fn ranges(table: &Table) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut push = |from, rule| match ranges.last() {
        // A check stands alone: its arguments mean something for its own number only.
        Some(last) if last.rule == rule && matches!(rule, Rule::Always(_)) => {}
        Some(_) | None => ranges.push(Range { from, rule }),
    };
    let mut next = 0;
    for Row { call, rule, .. } in table.rows() {
        if call.number > next {
            push(next, Rule::Always(DEFAULT));
        }
        push(call.number, *rule);
        next = call.number + 1;
    }
    push(next, Rule::Always(DEFAULT));
    push(FOREIGN_FROM, Rule::Always(Answer::Kill));
    push(u32::MAX, Rule::Always(DEFAULT));
    ranges
}

/// The search for the range of the number in the accumulator, and what it leads to.
fn tree(ranges: &[Range]) -> Vec<SockFilter> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some(middle) = high.first() else {
        // A tree of nothing is never asked for: there is a range for every number.
        return vec![give(Answer::Kill)];
    };
    if low.is_empty() {
        return leaf(middle.rule);
    }
    let low = tree(low);
    let mut code = if u8::try_from(low.len()).is_ok() {
        vec![jump(JUMP_AT_LEAST, middle.from, low.len(), 0)]
    } else {
        let far = SockFilter {
            code: JUMP,
            jt: 0,
            jf: 0,
            k: u32::try_from(low.len()).expect("a program of four thousand million instructions"),
        };
        vec![jump(JUMP_AT_LEAST, middle.from, 0, 1), far]
    };
    code.extend(low);
    code.extend(tree(high));
    code
}

/// The answer of one range.
fn leaf(rule: Rule) -> Vec<SockFilter> {
    match rule {
        Rule::Always(answer) => vec![give(answer)],
        Rule::Check { cases, otherwise } => cases
            .iter()
            .flat_map(case)
            .chain([give(otherwise)])
            .collect(),
    }
}

/// Returns the answer if all tests hold, else goes on behind itself.
fn case(case: &Case) -> Vec<SockFilter> {
    case.when
        .iter()
        .rev()
        .fold(vec![give(case.answer)], |rest, test| {
            let mut code = condition(*test, rest.len());
            code.extend(rest);
            code
        })
}

/// Goes on behind itself if the test holds, else skips so many instructions more.
fn condition(test: Test, otherwise_skip: usize) -> Vec<SockFilter> {
    match test {
        Test::AnyBit { argument, bits } => {
            vec![
                load_low_word(argument),
                jump(JUMP_ANY_BIT, bits, 0, otherwise_skip),
            ]
        }
        Test::OneOf {
            argument,
            mask,
            values,
        } => {
            let mut code = vec![load_low_word(argument)];
            if mask != u32::MAX {
                code.push(SockFilter {
                    code: AND,
                    jt: 0,
                    jf: 0,
                    k: mask,
                });
            }
            for (index, value) in values.iter().enumerate() {
                let after = values.len() - 1 - index;
                let fails = if after == 0 { otherwise_skip } else { 0 };
                code.push(jump(JUMP_EQUAL, *value, after, fails));
            }
            code
        }
    }
}

/// The low word of an argument: it comes first, on a little-endian machine.
fn load_low_word(argument: u8) -> SockFilter {
    load(ARGUMENTS_OFFSET + 8 * u32::from(argument))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::machine::{Data, disassemble, run};
    use super::*;

    const BOTH: [Accounting; 2] = [Accounting::Cgroup, Accounting::Sampling];

    #[test]
    fn the_program_with_a_cgroup() {
        let program = Program::new(Accounting::Cgroup);
        insta::assert_snapshot!(disassemble(program.instructions()));
    }

    #[test]
    fn every_number_is_answered_as_the_table_says() {
        for accounting in BOTH {
            let table = Table::new(accounting);
            let program = Program::compile(&table);
            let edges = [FOREIGN_FROM - 1, FOREIGN_FROM, u32::MAX - 1, u32::MAX];
            for number in (0..2_000).chain(edges) {
                let data = Data::new(ARCHITECTURE, number, [0; 6]);
                let wanted = give(table.judge(ARCHITECTURE, number, &[0; 6])).k;
                assert_eq!(
                    run(program.instructions(), &data).unwrap(),
                    wanted,
                    "{number}"
                );
            }
        }
    }

    #[test]
    fn another_architecture_is_killed_for_any_number() {
        const I386: u32 = 0x4000_0003;
        let program = Program::new(Accounting::Cgroup);
        for number in 0..500 {
            let data = Data::new(I386, number, [0; 6]);
            assert_eq!(
                run(program.instructions(), &data).unwrap(),
                libc::SECCOMP_RET_KILL_PROCESS
            );
        }
    }

    #[test]
    fn a_branch_that_no_conditional_jump_reaches_is_reached() {
        const MANY: [u32; 200] = [7; 200];
        const CASES: &[Case] = &[
            Case {
                when: &[Test::OneOf {
                    argument: 0,
                    mask: u32::MAX,
                    values: &MANY,
                }],
                answer: Answer::Pretend,
            },
            Case {
                when: &[Test::OneOf {
                    argument: 1,
                    mask: u32::MAX,
                    values: &MANY,
                }],
                answer: Answer::Errno(Errno::E2BIG),
            },
        ];
        let long = Rule::Check {
            cases: CASES,
            otherwise: Answer::Allow,
        };
        let far = [
            Range {
                from: 0,
                rule: long,
            },
            Range {
                from: 10,
                rule: Rule::Always(Answer::Kill),
            },
        ];
        let code = tree(&far);
        assert!(code.len() > 400);
        let answer = |number, first, second| {
            let mut program = vec![load(NUMBER_OFFSET)];
            program.extend(code.iter().copied());
            run(&program, &Data::new(0, number, [first, second, 0, 0, 0, 0])).unwrap()
        };
        assert_eq!(answer(10, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(answer(9, 7, 0), libc::SECCOMP_RET_ERRNO);
        assert_eq!(answer(9, 8, 7), give(Answer::Errno(Errno::E2BIG)).k);
        assert_eq!(answer(9, 8, 8), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn a_call_is_decided_after_few_steps() {
        for accounting in BOTH {
            let program = Program::new(accounting);
            let leaves = ranges(&Table::new(accounting)).len();
            let depth = leaves.next_power_of_two().ilog2() as usize;
            for number in 0..500 {
                let data = Data::new(ARCHITECTURE, number, [u64::MAX; 6]);
                run(program.instructions(), &data).unwrap();
                let before_arguments = data.steps_before_arguments();
                assert!(
                    before_arguments <= 2 * depth + 5,
                    "{number}: {before_arguments}"
                );
            }
        }
    }

    /// Arguments near those that the table asks about, with and without high bits.
    fn argument() -> impl Strategy<Value = u64> {
        let values: Vec<u64> = Table::new(Accounting::Cgroup)
            .rows()
            .iter()
            .filter_map(|row| match row.rule {
                Rule::Check { cases, .. } => Some(cases),
                Rule::Always(_) => None,
            })
            .flat_map(|cases| cases.iter().flat_map(|case| case.when))
            .flat_map(|test| match test {
                Test::OneOf { values, .. } => values.to_vec(),
                Test::AnyBit { bits, .. } => vec![*bits, bits & bits.wrapping_neg()],
            })
            .map(u64::from)
            .collect();
        let near = prop::sample::select(values);
        prop_oneof![
            4 => near.clone(),
            1 => near.prop_map(|value| value | 0xdead_beef_0000_0000),
            1 => (0_u64..32).prop_map(|bit| 1 << bit),
            1 => any::<u64>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arguments_are_judged_as_the_table_says(
            arguments in prop::array::uniform6(argument()),
            sampling in any::<bool>(),
        ) {
            let accounting = if sampling { Accounting::Sampling } else { Accounting::Cgroup };
            let table = Table::new(accounting);
            let program = Program::compile(&table);
            for number in 0..480 {
                let wanted = give(table.judge(ARCHITECTURE, number, &arguments)).k;
                let data = Data::new(ARCHITECTURE, number, arguments);
                prop_assert_eq!(run(program.instructions(), &data).unwrap(), wanted, "call {}", number);
            }
        }

        #[test]
        fn any_number_of_any_architecture_is_judged_as_the_table_says(
            architecture in prop_oneof![Just(ARCHITECTURE), any::<u32>()],
            number in prop_oneof![0_u32..600, any::<u32>()],
            arguments in prop::array::uniform6(argument()),
        ) {
            let table = Table::new(Accounting::Cgroup);
            let program = Program::compile(&table);
            let wanted = give(table.judge(architecture, number, &arguments)).k;
            let data = Data::new(architecture, number, arguments);
            prop_assert_eq!(run(program.instructions(), &data).unwrap(), wanted);
        }
    }
}
