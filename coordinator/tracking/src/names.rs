//! Grammar of what journals and callers name. A name is checked where it enters, and is then known to
//! be harmless in a path, a URL and a terminal.

use crate::MAX_NAME_BYTES;

/// Whether `text` is a SHA-256 as it is written everywhere here: 64 lower-case hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether `text` names a tracked run: `run-17`, `local-` and 26 letters or digits, `dev-` and 8
/// hexadecimal digits, or a nested run of one: `.` and hexadecimal digits behind it.
pub fn is_tracked_run(text: &str) -> bool {
    if text.len() > 128 {
        return false;
    }
    let mut parts = text.split('.');
    let Some(base) = parts.next() else {
        return false;
    };
    let base_holds = if let Some(number) = base.strip_prefix("run-") {
        !number.is_empty()
            && number.len() <= 20
            && !number.starts_with('0')
            && number.bytes().all(|byte| byte.is_ascii_digit())
    } else if let Some(made) = base.strip_prefix("local-") {
        made.len() == 26 && made.bytes().all(|byte| byte.is_ascii_alphanumeric())
    } else if let Some(made) = base.strip_prefix("dev-") {
        made.len() == 8 && is_lower_hex(made)
    } else {
        false
    };
    base_holds && parts.all(|nested| (1..=32).contains(&nested.len()) && is_lower_hex(nested))
}

/// Checks the name of a metric, a parameter or a tag.
pub(crate) fn check_key(kind: &str, key: &str) -> Result<(), String> {
    if key.is_empty() {
        Err(format!("a {kind} has an empty name"))
    } else if key.len() > MAX_NAME_BYTES {
        Err(format!(
            "the name of a {kind} has {} bytes, at most {MAX_NAME_BYTES}: {:?}...",
            key.len(),
            key.chars().take(40).collect::<String>()
        ))
    } else if key.chars().any(char::is_control) {
        Err(format!(
            "the name of {kind} {key:?} has a control character"
        ))
    } else {
        Ok(())
    }
}

/// Checks the name of a model.
pub(crate) fn check_model(name: &str) -> Result<(), String> {
    if coordinator_core::model::is_name(name) {
        Ok(())
    } else {
        Err(format!(
            "model name {:?} is not valid: allowed are 1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit",
            name.chars().take(80).collect::<String>()
        ))
    }
}

/// Checks the path of an artifact: relative, `/` between parts, and it never leaves its folder on any
/// operating system that may one day read it.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let shown = || path.chars().take(80).collect::<String>();
    if path.is_empty() || path.len() > 1024 {
        return Err(format!(
            "a path has {} bytes, allowed are 1 to 1024",
            path.len()
        ));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(format!(
            "path {:?} has a control character or a backslash",
            shown()
        ));
    }
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(format!(
            "path {:?} is not a plain relative path: no leading '/', no empty part, no '.' and no '..'",
            shown()
        ));
    }
    // `C:x` is a drive elsewhere.
    if path.as_bytes().get(1) == Some(&b':') {
        return Err(format!("path {:?} names a drive", shown()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracked_runs_keep_to_their_grammar() {
        for good in [
            "run-17",
            "run-17.a1b2c3d4",
            "run-17.a1b2c3d4.00000000",
            "local-01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "dev-0a1b2c3d",
        ] {
            assert!(is_tracked_run(good), "{good}");
        }
        for bad in [
            "", "run-", "run-0", "run-x", "run-1.", "run-1.G", "run-1/..", "local-1", "dev-1",
            "../run-1", "run-1\n",
        ] {
            assert!(!is_tracked_run(bad), "{bad}");
        }
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for good in ["a", "a/b.txt", "model/.hidden", "a..b", "ünïcode"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\u{0}", "a\nb", "C:a",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_have_a_longest_name() {
        assert_eq!(check_key("metric", &"k".repeat(250)), Ok(()));
        assert!(check_key("metric", &"k".repeat(251)).is_err());
        assert!(check_key("metric", "").is_err());
        assert!(check_key("metric", "a\u{1b}[31m").is_err());
    }
}
