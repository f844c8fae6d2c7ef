//! What the command line looks like, and how it refuses.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn refusal(line: &str) -> String {
    let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
    let error = parse(line).unwrap_err();
    one_line(&error.to_string(), &named_command(&arguments))
}

/// Every command, with the words that lead to it.
fn commands(command: &clap::Command, words: &str, all: &mut Vec<(String, clap::Command)>) {
    all.push((words.to_owned(), command.clone()));
    for sub in command.get_subcommands() {
        commands(sub, &format!("{words} {}", sub.get_name()), all);
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_every_command_is_as_it_was_read_last() {
    let mut all = Vec::new();
    let mut root = Cli::command().term_width(100);
    root.build();
    commands(&root, "wpool", &mut all);
    assert!(all.len() > 12);
    for (words, mut command) in all {
        let help = command.render_long_help().to_string();
        insta::assert_snapshot!(format!("help {words}").replace(' ', "_"), help);
    }
}

#[test]
fn every_command_shows_examples_and_every_option_has_a_word_about_it() {
    let mut all = Vec::new();
    commands(&Cli::command(), "wpool", &mut all);
    for (words, command) in all {
        let after = command.get_after_help().map(ToString::to_string);
        assert!(
            words == "wpool" || after.unwrap_or_default().contains("Examples:"),
            "{words} has no examples"
        );
        assert!(
            command.get_about().is_some(),
            "{words} says not what it does"
        );
        for argument in command.get_arguments() {
            let id = argument.get_id();
            assert!(argument.get_help().is_some(), "{words} {id} has no help");
        }
    }
}

#[test]
fn limits_are_written_as_people_write_them() {
    let cli = parse("wpool run --timeout 5s --cpu 2s --memory 256M --cpus 2 -- true").unwrap();
    let Command::Run(args) = cli.command else {
        panic!("{cli:?}")
    };
    let request = format!("{args:?}");
    assert!(request.contains("Millis(5000)"), "{request}");
    assert!(request.contains("ByteSize(268435456)"), "{request}");
}

#[test]
fn what_follows_the_program_is_the_programs() {
    for line in [
        "wpool run -- sh --json --timeout x",
        "wpool run sh --json --timeout x",
    ] {
        let cli = parse(line).unwrap();
        assert!(!cli.json, "{line}");
        let Command::Run(args) = cli.command else {
            panic!("{line}")
        };
        assert!(
            format!("{args:?}").contains(r#"["sh", "--json", "--timeout", "x"]"#),
            "{args:?}"
        );
    }
    assert!(parse("wpool run --json -- sh").unwrap().json);
    assert!(parse("wpool --json status").unwrap().json);
}

#[test]
fn a_misuse_is_told_in_one_line_with_what_to_do() {
    insta::assert_snapshot!(
        [
            refusal("wpool run --timeuot 5s -- true"),
            refusal("wpool run --memory 0.5G -- true"),
            refusal("wpool result"),
            refusal("wpool result not-an-id"),
            refusal("wpool pool dance"),
            refusal("wpool submit --batch x -- true"),
            refusal("wpool jobs --state done"),
            refusal("wpool run --out ../x -- true"),
            refusal("wpool completions tcsh"),
        ]
        .join("\n")
    );
}

#[test]
fn a_batch_describes_its_own_jobs() {
    let submit = Cli::command().find_subcommand("submit").unwrap().clone();
    let batch = submit
        .get_arguments()
        .find(|argument| argument.get_id() == "batch")
        .unwrap();
    let excluded = submit.get_arg_conflicts_with(batch);
    for argument in submit.get_arguments() {
        let id = argument.get_id().as_str();
        let may = ["batch", "socket", "wait"].contains(&id);
        let is_excluded = excluded.iter().any(|other| other.get_id() == id);
        assert_ne!(may, is_excluded, "{id}");
    }
}

#[test]
fn a_misuse_with_a_line_end_stays_one_line() {
    let error = Cli::try_parse_from(["wpool", "result", "a\n\nUsage: \x1b[2J"]).unwrap_err();
    let line = escape::message(&one_line(&error.to_string(), "wpool")).into_owned();
    assert!(!line.contains(char::is_control), "{line:?}");
}

#[test]
fn the_worker_is_in_no_help() {
    assert!(
        !Cli::command()
            .render_long_help()
            .to_string()
            .contains("worker slot")
    );
    assert_eq!(
        parse("wpool worker").unwrap_err().kind(),
        ErrorKind::InvalidSubcommand
    );
}
