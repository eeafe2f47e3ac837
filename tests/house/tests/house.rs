//! The rules of the house, held by reading it: purity, import directions, words, habits of files.

use platform_house::{assert_none, camel_parts, code, dependencies, files, files_in, text, words};
use std::collections::BTreeSet;

/// Crates without I/O, a clock or randomness, with all that each may depend on.
const PURE: &[(&str, &[&str])] = &[
    (
        "coordinator/core",
        &["blake3", "rmp-serde", "serde", "thiserror"],
    ),
    ("agent/core", &["serde", "thiserror"]),
    (
        "coordinator/replica",
        &[
            "coordinator-core",
            "protobuf",
            "raft",
            "rmp-serde",
            "serde",
            "slog",
            "thiserror",
        ],
    ),
    ("tests/checker", &["coordinator-core"]),
    (
        "coordinator/simulation",
        &[
            "coordinator-core",
            "csv",
            "flate2",
            "serde",
            "serde_json",
            "thiserror",
        ],
    ),
];

/// Each crate of ours, its folder, and which others of ours it may import.
const DIRECTIONS: &[(&str, &str, &[&str])] = &[
    ("platform-proto", "proto", &[]),
    ("coordinator-core", "coordinator/core", &[]),
    (
        "coordinator-replica",
        "coordinator/replica",
        &["coordinator-core"],
    ),
    (
        "coordinator-tracking",
        "coordinator/tracking",
        &["coordinator-core"],
    ),
    (
        "coordinator-simulation",
        "coordinator/simulation",
        &["coordinator-core"],
    ),
    (
        "coordinator",
        "coordinator",
        &[
            "coordinator-core",
            "coordinator-replica",
            "coordinator-tracking",
            "platform-proto",
        ],
    ),
    ("platform-checker", "tests/checker", &["coordinator-core"]),
    ("agent-core", "agent/core", &[]),
    ("agent", "agent", &["agent-core", "platform-proto"]),
];

/// What no code of a pure crate may speak of. The traits of `std::io` are not among it: a codec may
/// read and write bytes in memory by them.
const IMPURE_WORDS: &[&str] = &[
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "rand",
    "getrandom",
    "tokio",
    "thread",
    "stdin",
    "stdout",
    "stderr",
    "println",
    "eprintln",
];
const IMPURE_PATHS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::time",
    "std::os",
];

/// What the checker of plans may not ask: what the planner and admission decide by.
const DECIDED_BY: &[&str] = &[
    "policy::",
    "queues",
    "fits_now",
    "fits_empty",
    "memory_on",
    "MemberDemand",
    "gpu_memory_cap_mib",
    "is_of_model",
    "tenant_and_above",
    "state.used_milli",
    "state.idle_milli",
    "claim_on",
    "claim_beside",
    "reclaims_as",
    "state.used_on",
    "state.idle_on",
    "metered_models",
    "state.exempt_until_us",
    "held_since_us",
    "held_milli",
    "Inventory",
    "lets_start",
    "is_owed_at_once",
    "longest_limit_ms",
];

/// What of the scheduler it may name: the plan itself with what it keeps for whom, and the bounds at
/// which one is cut.
const PLAN: &[&str] = &[
    "Plan",
    "Reservation",
    "MOST_PLACEMENTS",
    "MOST_LINES_REFUSED",
];

const AVOIDED: &[&str] = &[
    "Job", "Task", "Worker", "Slot", "Manager", "Util", "Utils", "Helper", "Helpers",
];
const LONGEST_FILE_LINES: usize = 900;

fn manifest(folder: &str) -> String {
    text(&format!("{folder}/Cargo.toml")).expect("a manifest is text")
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("/fixtures.rs")
}

#[test]
fn the_pure_crates_depend_on_nothing_that_does_io() {
    let mut findings = Vec::new();
    for (folder, allowed) in PURE {
        for table in ["dependencies", "build-dependencies"] {
            for name in dependencies(&manifest(folder), table) {
                if !allowed.contains(&name.as_str()) {
                    findings.push(format!("{folder}: {name}"));
                }
            }
        }
    }
    assert_none("a pure crate has a dependency outside its list", &findings);
}

#[test]
fn the_pure_crates_have_no_clock_no_randomness_no_io_and_no_random_order() {
    let mut findings = Vec::new();
    for (folder, _) in PURE {
        for path in files_in(&format!("{folder}/src/"), ".rs") {
            if is_test_file(&path) {
                continue;
            }
            let code = code(&text(&path).expect("code is text"));
            let words = words(&code);
            for word in IMPURE_WORDS.iter().filter(|word| words.contains(*word)) {
                findings.push(format!("{path}: {word}"));
            }
            for word in IMPURE_PATHS.iter().filter(|word| code.contains(*word)) {
                findings.push(format!("{path}: {word}"));
            }
        }
    }
    assert_none("a pure crate speaks of the world outside", &findings);
}

#[test]
fn our_crates_import_each_other_in_one_direction() {
    let ours: BTreeSet<&str> = DIRECTIONS.iter().map(|(name, _, _)| *name).collect();
    let mut findings = Vec::new();
    for (name, folder, allowed) in DIRECTIONS {
        for dependency in dependencies(&manifest(folder), "dependencies") {
            if ours.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{name} imports {dependency}"));
            }
        }
        // A test may look further up its own side, never across.
        for dependency in dependencies(&manifest(folder), "dev-dependencies") {
            let across = (folder.starts_with("coordinator") && dependency.starts_with("agent"))
                || (folder.starts_with("agent") && dependency.starts_with("coordinator"));
            if across {
                findings.push(format!("the tests of {name} import {dependency}"));
            }
        }
    }
    assert_none("an import against the direction of the design", &findings);
}

#[test]
fn only_the_command_line_the_tests_and_the_benches_see_both_sides() {
    let mut findings = Vec::new();
    for path in files_in("", "Cargo.toml") {
        let folder = path.trim_end_matches("Cargo.toml").trim_end_matches('/');
        if folder.is_empty()
            || folder == "cli"
            || folder == "benches"
            || folder.starts_with("tests/")
        {
            continue;
        }
        let manifest = text(&path).expect("a manifest is text");
        let names: BTreeSet<String> = ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .flat_map(|table| dependencies(&manifest, table))
            .collect();
        let sees = |side: &str| {
            names
                .iter()
                .any(|name| name == side || name.starts_with(&format!("{side}-")))
        };
        if sees("coordinator") && sees("agent") {
            findings.push(path);
        }
    }
    assert_none("a crate sees coordinator and agent both", &findings);
}

#[test]
fn inside_the_core_imports_point_from_scheduler_to_state_to_policy_to_model() {
    let layers = ["model", "policy", "state", "scheduler"];
    let mut findings = Vec::new();
    for (height, layer) in layers.iter().enumerate() {
        for path in files_in(&format!("coordinator/core/src/{layer}/"), ".rs") {
            if is_test_file(&path) {
                continue;
            }
            let code = code(&text(&path).expect("code is text"));
            for above in &layers[height + 1..] {
                if code.contains(&format!("crate::{above}")) {
                    findings.push(format!("{path} uses crate::{above}"));
                }
            }
        }
    }
    assert_none("an import against the direction of the core", &findings);
}

#[test]
fn the_checker_of_plans_shares_no_code_with_the_planner() {
    let mut findings = Vec::new();
    for path in files_in("tests/checker/src/", ".rs") {
        let code = code(&text(&path).expect("code is text"));
        let named = words(&code);
        let shared = |decided: &&&str| match decided.contains(['.', ':']) {
            true => code.contains(**decided),
            false => named.contains(**decided),
        };
        for decided in DECIDED_BY.iter().filter(shared) {
            findings.push(format!("{path}: {decided}"));
        }
        for line in code.lines() {
            let names = line
                .split_once("scheduler::")
                .map(|(_, names)| words(names));
            let foreign = names
                .into_iter()
                .flatten()
                .find(|name| !PLAN.contains(name));
            findings.extend(foreign.map(|name| format!("{path}: {name}")));
        }
    }
    assert_none("the checker asks what it is to judge", &findings);
}

#[test]
fn every_file_of_code_says_why_it_exists() {
    let mut findings = Vec::new();
    for path in files_in("", ".rs") {
        if !text(&path).expect("code is text").starts_with("//!") {
            findings.push(path);
        }
    }
    for path in files_in("", ".py") {
        let text = text(&path).expect("code is text");
        // What belongs before the docstring by the language's own rules.
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .unwrap_or_default();
        let opens = first.trim_start_matches(['r', 'R']);
        if (path.starts_with("sdk/") || path.starts_with("tests/"))
            && !(opens.starts_with("\"\"\"") || opens.starts_with("'''") || opens.starts_with('"'))
        {
            findings.push(path);
        }
    }
    assert_none("a file does not open with why it exists", &findings);
}

#[test]
fn no_file_of_code_wants_two_rooms() {
    let mut findings = Vec::new();
    for ending in [".rs", ".py"] {
        for path in files_in("", ending) {
            let lines = text(&path).expect("code is text").lines().count();
            if lines > LONGEST_FILE_LINES {
                findings.push(format!("{path}: {lines} lines"));
            }
        }
    }
    assert_none("a file is too long", &findings);
}

#[test]
fn nothing_is_left_to_do_without_the_number_of_its_issue() {
    let mark = ["TO", "DO"].concat();
    let macros = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let mut findings = Vec::new();
    for ending in [".rs", ".py"] {
        for path in files_in("", ending) {
            for (number, line) in (1..).zip(text(&path).expect("code is text").lines()) {
                let open = words(line).contains(mark.as_str()) && !line.contains("(#");
                if open || macros.iter().any(|name| line.contains(name.as_str())) {
                    findings.push(format!("{path}:{number}"));
                }
            }
        }
    }
    assert_none("something is left to do, and no issue knows", &findings);
}

#[test]
fn no_file_names_a_machine_that_it_was_written_on() {
    // In parts, so that this file may be read too.
    let paths =
        ["/wo:rk/", "/ro:ot/.", "/home/u:buntu", "/Us:ers/"].map(|path| path.replace(':', ""));
    let mut findings = Vec::new();
    for path in files() {
        let Some(text) = text(&path) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            for machine in &paths {
                // A whole path, and not the tail of one: `attempts/1/work/log` is nobody's machine.
                let whole = line.match_indices(machine.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| {
                        before.is_alphanumeric() || "-_.}{)>~*".contains(before)
                    })
                });
                if whole {
                    findings.push(format!("{path}:{number}: {machine}"));
                }
            }
        }
    }
    assert_none("a path of one machine", &findings);
}

#[test]
fn public_types_keep_to_the_words_of_the_design() {
    let mut findings = Vec::new();
    for path in files_in("", ".rs") {
        let code = code(&text(&path).expect("code is text"));
        for line in code.lines().map(str::trim_start) {
            let name = ["pub struct ", "pub enum ", "pub trait ", "pub type "]
                .iter()
                .find_map(|start| line.strip_prefix(start))
                .and_then(|rest| {
                    rest.split(|c: char| !(c.is_alphanumeric() || c == '_'))
                        .next()
                });
            let Some(name) = name else { continue };
            if camel_parts(name)
                .iter()
                .any(|part| AVOIDED.contains(&part.as_str()))
            {
                findings.push(format!("{path}: {name}"));
            }
        }
    }
    assert_none(
        "a public type is named by a word that the design avoids",
        &findings,
    );
}

#[test]
fn the_readings_above_see_what_they_look_for() {
    let manifest = "[dependencies]\na.workspace = true\n# b = 1\nc = { version = \"1\" }\n\
                    [target.'cfg(unix)'.dependencies]\nd = \"1\"\n[dependencies.e]\nversion = \"1\"\n\
                    [dev-dependencies]\nf = \"1\"\n";
    let names: Vec<String> = dependencies(manifest, "dependencies").into_iter().collect();
    assert_eq!(names, ["a", "c", "d", "e"]);
    let source = "use x; // tokio\nlet a = \"rand \\\" rand\"; SystemTime\n#[cfg(test)]\nmod tests {\nInstant";
    let seen = code(source);
    assert!(words(&seen).contains("SystemTime"));
    for absent in ["tokio", "rand", "Instant"] {
        assert!(!words(&seen).contains(absent), "{absent}");
    }
    assert_eq!(camel_parts("RunManager"), ["Run", "Manager"]);
    assert!(files().iter().any(|path| path == "tests/house/src/lib.rs"));
}
