//! The house rules hold in this repository.
//!
//! Each test is one rule of `wpool_tests::tidy`, where it is also tried on repositories that break it.

use wpool_tests::tidy::{
    Repository, attacks, code, crates, layout, markdown, mutations, policy, words,
};

/// Applies a rule to the repository as it lies on disk.
fn hold(rule: fn(&Repository) -> Vec<String>) {
    let repository = Repository::of_this_crate().expect("the repository can be read");
    let wrong = rule(&repository);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_top_level_holds_what_the_owner_fixed() {
    hold(layout::top_level);
}

#[test]
fn files_are_named_after_what_they_hold() {
    hold(layout::names);
}

#[test]
fn no_file_is_too_long() {
    hold(layout::lengths);
}

#[test]
fn every_file_opens_with_what_it_is() {
    hold(code::headers);
}

#[test]
fn invariants_are_stated() {
    hold(code::invariants);
}

#[test]
fn unsafe_code_and_the_codec_stay_in_their_corners() {
    hold(code::corners);
}

#[test]
fn no_lint_is_set_aside_without_a_reason() {
    hold(code::reasons);
}

#[test]
fn tests_neither_sleep_nor_are_switched_off() {
    hold(code::honest_tests);
}

#[test]
fn no_word_is_banned() {
    hold(words::banned);
}

#[test]
fn no_exception_is_without_a_reason() {
    hold(policy::exceptions);
}

#[test]
fn planted_bugs_fit_the_code() {
    hold(mutations::fit);
}

#[test]
fn arrows_between_crates_point_inward() {
    hold(crates::arrows);
}

#[test]
fn the_workspace_holds_the_crates_of_the_architecture() {
    hold(crates::members);
}

#[test]
fn the_supervisor_does_not_use_the_worker() {
    hold(crates::one_binary);
}

#[test]
fn the_core_is_pure() {
    hold(crates::pure_core);
}

#[test]
fn every_document_has_one_title() {
    hold(markdown::titles);
}

#[test]
fn links_lead_somewhere() {
    hold(markdown::links);
}

#[test]
fn documents_name_what_exists() {
    hold(markdown::names);
}

#[test]
fn documents_name_commands_that_can_be_typed() {
    hold(markdown::commands);
}

#[test]
fn every_promise_names_the_test_that_keeps_it() {
    hold(markdown::promises);
}

#[test]
fn the_code_map_is_whole() {
    hold(markdown::code_map);
}

#[test]
fn every_known_attack_is_tried_or_told() {
    hold(attacks::list);
}

#[test]
fn the_list_of_attacks_names_tests_that_exist_and_all_that_are_tried() {
    hold(attacks::tests);
}

/// `UPDATE_GOLDEN=1` writes the table of the page anew.
#[test]
fn the_page_on_security_shows_the_list_of_attacks() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let repository = Repository::of_this_crate().expect("the repository can be read");
        let page = repository.text(attacks::PAGE).expect("there is a page");
        let new = attacks::renewed(&repository, page).expect("it has a place for the list");
        let path = format!("{}/../{}", env!("CARGO_MANIFEST_DIR"), attacks::PAGE);
        std::fs::write(path, new).expect("the page can be written");
    }
    hold(attacks::page);
}
