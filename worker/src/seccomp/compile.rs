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
//! Loading a filter costs the kernel time for every instruction (it makes machine code of them) and for every
//! step of every number (it fills a cache): hence the tree, and hence returns are shared.
//!
//! # Invariants
//!
//! - Every number of every architecture has an answer: ranges leave no gap.
//! - The program is at most [`INSTRUCTIONS_MAX`] long.

use wpool_sys::seccomp::{INSTRUCTIONS_MAX, SockFilter};

use self::writer::{ARCHITECTURE_OFFSET, JUMP_EQUAL, NUMBER_OFFSET, Target, Writer};
use crate::ground::Ground;

use super::table::{ARCHITECTURE, Accounting, Answer, DEFAULT, FOREIGN_FROM, Row, Rule, Table};

#[cfg(test)]
mod machine;
mod writer;

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

    /// The filter of jobs on this ground.
    pub fn on(ground: &Ground, accounting: Accounting) -> Self {
        Self::compile(&Table::on(ground, accounting))
    }

    /// The filter that answers as the table says.
    ///
    /// # Panics
    ///
    /// If the table makes a program that the kernel would not take: it is ours, and a test compiles it.
    pub fn compile(table: &Table) -> Self {
        let mut writer = Writer::default();
        let by_number = writer.search(&ranges(table));
        let by_number = writer.resolve(by_number);
        let by_number = writer.load(NUMBER_OFFSET, by_number);
        let start = writer.branch(
            JUMP_EQUAL,
            ARCHITECTURE,
            Target::Place(by_number),
            Target::Answer(Answer::Kill),
        );
        writer.load(ARCHITECTURE_OFFSET, start);
        let instructions = writer.finish();
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

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::machine::{Data, disassemble, run};
    use super::writer::{runs, value};
    use super::*;
    use crate::seccomp::table::{Case, Test};

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
                let wanted = value(table.judge(ARCHITECTURE, number, &[0; 6]));
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
        const EVEN: [u32; 300] = {
            let mut even = [0; 300];
            let mut index: u32 = 0;
            while index < 300 {
                even[index as usize] = 2 * index;
                index += 1;
            }
            even
        };
        const CASES: &[Case] = &[
            Case {
                when: &[Test::is(0, &EVEN)],
                answer: Answer::Pretend,
            },
            Case {
                when: &[Test::is(1, &EVEN)],
                answer: Answer::Errno(Errno::E2BIG),
            },
        ];
        let long = Rule::Check {
            cases: CASES,
            otherwise: Answer::Allow,
        };
        let range = |from, rule| Range { from, rule };
        let mut writer = Writer::default();
        let start = writer.search(&[
            range(0, long),
            range(10, Rule::Always(Answer::Kill)),
            range(20, long),
        ]);
        let start = writer.resolve(start);
        writer.load(NUMBER_OFFSET, start);
        let program = writer.finish();
        assert!(program.len() > 1_200);
        let answer = |number, first, second| {
            run(&program, &Data::new(0, number, [first, second, 0, 0, 0, 0])).unwrap()
        };
        assert_eq!(answer(10, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
        for number in [9, 20] {
            assert_eq!(answer(number, 0, 1), libc::SECCOMP_RET_ERRNO);
            assert_eq!(answer(number, 598, 1), libc::SECCOMP_RET_ERRNO);
            assert_eq!(answer(number, 599, 300), value(Answer::Errno(Errno::E2BIG)));
            assert_eq!(answer(number, 600, 301), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn neighbours_are_one_run() {
        assert_eq!(
            runs(&[7, 2, 1, 3, u32::MAX]),
            [(1, 3), (7, 7), (u32::MAX, u32::MAX)]
        );
        assert_eq!(runs(&[u32::MAX - 1, u32::MAX]), [(u32::MAX - 1, u32::MAX)]);
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
                let wanted = value(table.judge(ARCHITECTURE, number, &arguments));
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
            let wanted = value(table.judge(architecture, number, &arguments));
            let data = Data::new(architecture, number, arguments);
            prop_assert_eq!(run(program.instructions(), &data).unwrap(), wanted);
        }
    }
}
