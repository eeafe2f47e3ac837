//! Reads the repository as text, so that the tests beside it can hold the rules of the house.
//!
//! Deliberately without a parser and without dependencies: the rules are about what stands in the
//! files, a line scan is enough for each of them, and a check that nobody waits for stays in use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two folders below the root")
        .to_owned()
}

/// Every file of the repository, tracked or new and not ignored, by its path from the root.
pub fn files() -> Vec<String> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git is there: the repository came by it");
    assert!(output.status.success(), "git ls-files: {output:?}");
    let paths: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|path| root().join(path).is_file())
        .map(str::to_owned)
        .collect();
    paths.into_iter().collect()
}

/// Every file with this ending beneath this folder; an empty folder means everywhere.
pub fn files_in(folder: &str, ending: &str) -> Vec<String> {
    files()
        .into_iter()
        .filter(|path| path.starts_with(folder) && path.ends_with(ending))
        .collect()
}

/// The text of a file; `None` when it is not text.
pub fn text(path: &str) -> Option<String> {
    let bytes = std::fs::read(root().join(path)).expect("a listed file is read");
    String::from_utf8(bytes).ok()
}

/// Names of the crates in one kind of dependency table of a manifest, for every target.
pub fn dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header == table || header.ends_with(&format!(".{table}"));
            // `[dependencies.name]` is a table of its own.
            if let Some((before, name)) = header.rsplit_once('.')
                && (before == table || before.ends_with(&format!(".{table}")))
            {
                names.insert(name.to_owned());
            }
        } else if inside
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once('=')
        {
            let name = name.trim().split('.').next().unwrap_or_default();
            names.insert(name.trim_matches('"').to_owned());
        }
    }
    names
}

/// Rust code without comments, without test modules, and without what stands in strings.
pub fn code(text: &str) -> String {
    let before_tests = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let mut code = String::new();
    for line in before_tests.lines() {
        let mut in_string = false;
        let mut previous = ' ';
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if !(in_string && previous == '\\') && previous != '\'' => {
                    in_string = !in_string;
                }
                '/' if !in_string && characters.peek() == Some(&'/') => break,
                _ if in_string => {}
                other => code.push(other),
            }
            previous = if previous == '\\' && character == '\\' {
                ' '
            } else {
                character
            };
        }
        code.push('\n');
    }
    code
}

/// Identifiers and paths of a piece of code, whole words only.
pub fn words(code: &str) -> BTreeSet<&str> {
    code.split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .filter(|word| !word.is_empty())
        .collect()
}

/// `RunManager` in parts: `Run`, `Manager`.
pub fn camel_parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for character in name.chars() {
        match parts.last_mut() {
            Some(part) if !character.is_uppercase() => part.push(character),
            _ => parts.push(character.to_string()),
        }
    }
    parts
}

/// Fails with every finding at once, each on its line.
pub fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
