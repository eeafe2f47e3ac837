//! Which command a run starts: `train.py` means `python train.py`, a notebook is executed as it is,
//! and a script that is not there is found out here, not on the node.

use crate::failure::Failure;
use crate::parse;
use std::path::{Component, Path, PathBuf};

/// The command to run, and the script within the folder that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The script, relative to the folder.
    pub script: Option<PathBuf>,
}

/// Resolves what stands on the command line. `folder` is canonical.
pub fn resolve(folder: &Path, typed: &[String]) -> Result<Resolved, Failure> {
    let Some((program, arguments)) = typed.split_first() else {
        return Err(Failure::usage("nothing to run").hint("platform run train.py"));
    };
    let prefix: Option<&[&str]> = match Path::new(program)
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("py") => Some(&["python"]),
        Some("ipynb") => Some(&["python", "-m", "engineersofai_platform.notebook"]),
        Some("sh") => Some(&["bash"]),
        _ => None,
    };
    if let Some(prefix) = prefix {
        let script = within(folder, program)?;
        let mut command: Vec<String> = prefix.iter().map(|part| (*part).to_owned()).collect();
        command.push(text(&script));
        command.extend_from_slice(arguments);
        return Ok(Resolved {
            command,
            script: Some(script),
        });
    }
    let mut command = typed.to_vec();
    // A program by a relative path is the folder's own; a bare name is the node's.
    if program.contains('/') && !Path::new(program).is_absolute() {
        let script = within(folder, program)?;
        command[0] = format!("./{}", text(&script));
        return Ok(Resolved {
            command,
            script: Some(script),
        });
    }
    let Some(at) = script_argument(program, arguments) else {
        return Ok(Resolved {
            command,
            script: None,
        });
    };
    let script = within(folder, &arguments[at])?;
    command[at + 1] = text(&script);
    Ok(Resolved {
        command,
        script: Some(script),
    })
}

/// What `platform run` alone runs: `train.py`, or the folder's only script or notebook.
pub fn only_script(folder: &Path) -> Result<String, Failure> {
    if folder.join("train.py").is_file() {
        return Ok("train.py".to_owned());
    }
    let scripts: Vec<String> = scripts(folder)
        .into_iter()
        .filter(|name| !name.ends_with(".sh"))
        .collect();
    match scripts.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::usage(format!(
            "nothing to run: there is no script in {}",
            folder.display()
        ))
        .hint("platform run -C DIR, or platform run -- PROGRAM")),
        [first, ..] => Err(Failure::usage(
            "nothing to run was named, and the folder has several scripts",
        )
        .allowed(scripts.join(", "))
        .hint(format!("platform run {first}"))),
    }
}

/// Where an interpreter's script stands among its arguments, when it has one.
fn script_argument(program: &str, arguments: &[String]) -> Option<usize> {
    let name = Path::new(program).file_name()?.to_str()?;
    let python = name.starts_with("python");
    if !python && !matches!(name, "bash" | "sh") {
        return None;
    }
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        match argument.as_str() {
            "-m" | "-c" | "-" => return None,
            "-W" | "-X" if python => at += 2,
            flag if flag.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The path of a script relative to the folder, when it is there and within.
fn within(folder: &Path, typed: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(typed);
    let outside = || {
        Failure::usage(format!(
            "{typed} lies outside the folder {}",
            folder.display()
        ))
        .allowed("a script within the folder, which is what is packed")
        .hint("run in its folder: platform run -C DIR SCRIPT")
    };
    // By its text first: what is outside is said to be outside even where it does not exist.
    let mut depth = 0i64;
    if !Path::new(typed).is_absolute() {
        for part in Path::new(typed).components() {
            match part {
                Component::ParentDir => depth -= 1,
                Component::Normal(_) => depth += 1,
                _ => {}
            }
            if depth < 0 {
                return Err(outside());
            }
        }
    }
    match path.canonicalize() {
        Ok(real) if real.is_dir() => {
            Err(Failure::usage(format!("{typed} is a folder")).hint(there(folder, typed)))
        }
        Ok(real) => real
            .strip_prefix(folder)
            .map(Path::to_path_buf)
            .map_err(|_| outside()),
        Err(_) if Path::new(typed).is_absolute() && !path.starts_with(folder) => Err(outside()),
        Err(_) => Err(
            Failure::usage(format!("{typed} is not in the folder {}", folder.display()))
                .hint(there(folder, typed)),
        ),
    }
}

/// What could have been meant.
fn there(folder: &Path, typed: &str) -> String {
    let scripts = scripts(folder);
    if let Some(meant) = parse::nearest(typed, scripts.iter().map(String::as_str)) {
        return format!("did you mean {meant}?");
    }
    match scripts.len() {
        0 => "there is no script in it; -C DIR names another folder".to_owned(),
        1..=8 => format!("there is: {}", scripts.join(", ")),
        more => format!(
            "there is: {} and {} more",
            scripts[..8].join(", "),
            more - 8
        ),
    }
}

/// Scripts and notebooks at the top of a folder.
fn scripts(folder: &Path) -> Vec<String> {
    let mut scripts: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            [".py", ".ipynb", ".sh"]
                .iter()
                .any(|extension| name.ends_with(extension))
        })
        .collect();
    scripts.sort();
    scripts
}

/// The name a run has by default: its script, and its folder.
pub fn default_name(folder: &Path, resolved: &Resolved) -> String {
    let script = match &resolved.script {
        Some(script) => script.file_stem(),
        None => resolved
            .command
            .first()
            .and_then(|program| Path::new(program).file_name()),
    };
    let parts = [script, folder.file_name()];
    let words: Vec<String> = parts
        .into_iter()
        .flatten()
        .map(|part| plain_name(&part.to_string_lossy()))
        .filter(|part| !part.is_empty())
        .collect();
    if words.is_empty() {
        "run".to_owned()
    } else {
        words.join("-").chars().take(60).collect()
    }
}

fn plain_name(text: &str) -> String {
    let mapped: String = text
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    mapped.trim_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let kept = tempfile::tempdir().unwrap();
        let folder = kept.path().canonicalize().unwrap().join("Digits 2");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        for name in ["train.py", "explore.ipynb", "sub/eval.py", "go.sh"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        (kept, folder)
    }

    fn resolved(folder: &Path, typed: &str) -> Result<String, Failure> {
        let typed: Vec<String> = typed.split(' ').map(str::to_owned).collect();
        resolve(folder, &typed).map(|resolved| resolved.command.join(" "))
    }

    #[test]
    fn a_script_a_notebook_and_a_command_each_become_what_they_mean() {
        let (_kept, folder) = folder();
        let absolute = folder.join("train.py").display().to_string();
        for (typed, meant) in [
            ("train.py --lr 0.1", "python train.py --lr 0.1"),
            ("./train.py", "python train.py"),
            (
                "explore.ipynb",
                "python -m engineersofai_platform.notebook explore.ipynb",
            ),
            ("python -u train.py x.py", "python -u train.py x.py"),
            ("python sub/../train.py", "python train.py"),
            ("python3 -m pytest", "python3 -m pytest"),
            ("torchrun train.py", "torchrun train.py"),
            ("./go.sh", "bash go.sh"),
            ("echo missing.py", "echo missing.py"),
            (absolute.as_str(), "python train.py"),
        ] {
            let typed: Vec<String> = if typed.starts_with('/') {
                vec![typed.to_owned()]
            } else {
                typed.split(' ').map(str::to_owned).collect()
            };
            assert_eq!(resolve(&folder, &typed).unwrap().command.join(" "), meant);
        }
    }

    #[test]
    fn a_script_that_is_not_there_says_what_is() {
        let (_kept, folder) = folder();
        let shown = |typed: &str| {
            resolved(&folder, typed)
                .unwrap_err()
                .to_string()
                .replace(&folder.display().to_string(), "FOLDER")
        };
        let all: String = [
            "trian.py",
            "python zzzzzzzzzzzzz.py",
            "sub",
            "../other.py",
            "python /etc/passwd",
            "./sub",
        ]
        .map(|typed| match resolved(&folder, typed) {
            Ok(command) => format!("{typed} => {command}\n"),
            Err(_) => format!("{typed} => {}\n", shown(typed)),
        })
        .concat();
        insta::assert_snapshot!(all);
    }

    #[test]
    fn a_folder_with_one_script_needs_no_command() {
        let (_kept, folder) = folder();
        assert_eq!(only_script(&folder).unwrap(), "train.py");
        std::fs::remove_file(folder.join("train.py")).unwrap();
        assert_eq!(only_script(&folder).unwrap(), "explore.ipynb");
        std::fs::write(folder.join("other.py"), "").unwrap();
        insta::assert_snapshot!(only_script(&folder).unwrap_err(), @r"
        nothing to run was named, and the folder has several scripts
          allowed: explore.ipynb, other.py
          hint: platform run explore.ipynb
        ");
    }

    #[test]
    fn a_run_is_named_after_its_script_and_folder() {
        let (_kept, folder) = folder();
        let name =
            |typed: &str| default_name(&folder, &resolve(&folder, &[typed.to_owned()]).unwrap());
        assert_eq!(
            [name("train.py"), name("sub/eval.py"), name("echo")],
            ["train-digits-2", "eval-digits-2", "echo-digits-2"]
        );
    }
}
