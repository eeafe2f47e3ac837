//! From flags, `platform.toml` and the folder to the spec that is submitted.

use super::command;
use super::sweep::Sweep;
use crate::failure::{Failure, on_path};
use crate::pack::{self, Listing};
use crate::priorities;
use crate::project::{self, Project};
use platform_proto::http::{RunSpec, WarningSpec};
use std::path::{Path, PathBuf};

/// What stands on the command line.
#[derive(Debug, Clone, Default)]
pub struct Typed {
    /// Program and arguments, or a script.
    pub command: Vec<String>,
    /// Flags that `platform.toml` can hold as well.
    pub flags: Project,
    /// Install nothing.
    pub no_requirements: bool,
    /// Tenant to charge.
    pub tenant: Option<String>,
    /// What it follows.
    pub after: Vec<String>,
    /// Many runs of it, by index.
    pub array: Option<String>,
    /// Many runs of it, by parameters.
    pub sweep: Option<Sweep>,
    /// Folder to pack.
    pub folder: PathBuf,
    /// Largest folder.
    pub max_upload_bytes: Option<u64>,
}

/// A spec, and what of the folder goes with it.
#[derive(Debug)]
pub struct Prepared {
    /// Without the address of the package: it is not packed yet.
    pub spec: RunSpec,
    /// What is packed.
    pub listing: Listing,
    /// Indexes of an array.
    pub array: Option<String>,
    /// A sweep.
    pub sweep: Option<Sweep>,
}

/// Everything that can be found wrong without a server.
pub fn prepare(mut typed: Typed) -> Result<Prepared, Failure> {
    let folder = canonical(&typed.folder)?;
    if typed.command.is_empty() {
        typed.command.push(command::only_script(&folder)?);
    }
    let resolved = command::resolve(&folder, &typed.command)?;
    let spec = spec(&typed, &folder, &resolved)?;
    let listing = pack::list(
        &folder,
        typed.max_upload_bytes.unwrap_or(pack::DEFAULT_LIMIT_BYTES),
    )?;
    let packed = |path: &Path| -> Result<(), Failure> {
        if listing.contains(path) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} is ignored by .gitignore or .platformignore, so it is not packed",
            path.display()
        ))
        .hint(format!("echo '!{}' >> .platformignore", path.display())))
    };
    if let Some(script) = &resolved.script {
        packed(script)?;
    }
    if let Some(requirements) = &spec.requirements_path {
        packed(Path::new(requirements))?;
    }
    Ok(Prepared {
        spec,
        listing,
        array: typed.array,
        sweep: typed.sweep,
    })
}

/// The folder, by its real path.
pub fn canonical(folder: &Path) -> Result<PathBuf, Failure> {
    let real = folder.canonicalize().map_err(on_path("open", folder))?;
    if real.is_dir() {
        Ok(real)
    } else {
        Err(Failure::usage(format!(
            "{} is not a folder",
            folder.display()
        )))
    }
}

/// The spec: flags over the file, defaults left to the server.
pub fn spec(
    typed: &Typed,
    folder: &Path,
    resolved: &command::Resolved,
) -> Result<RunSpec, Failure> {
    let project = over(typed.flags.clone(), project::read(folder)?);
    let requirements_path = match (typed.no_requirements, project.requirements) {
        (true, _) => None,
        (false, Some(named)) => Some(requirements(folder, &named)?),
        (false, None) if folder.join("requirements.txt").exists() => {
            Some(requirements(folder, "requirements.txt")?)
        }
        (false, None) => None,
    };
    let (priority, priority_class) = project
        .priority
        .map_or((0, None), priorities::Priority::split);
    Ok(RunSpec {
        name: project
            .name
            .unwrap_or_else(|| command::default_name(folder, resolved)),
        command: resolved.command.clone(),
        source_sha256: None,
        requirements_path,
        working_folder: None,
        environment: project.environment,
        image: project.image,
        gpus: project.gpus,
        gpu_share_milli: project.gpu_share_milli,
        gpu_memory_mib: project.gpu_memory_mib,
        gpu_model: project.gpu_model,
        nodes: project.nodes.unwrap_or(1),
        cpu_milli: project.cpu_milli,
        memory_mib: project.memory_mib,
        pool: project.pool,
        tags: project.tags,
        model: project.model,
        priority,
        priority_class,
        never_preempts: false,
        time_limit_ms: project.time_limit_ms,
        retries: project.retries.unwrap_or(0),
        tenant: typed.tenant.clone(),
        preemptible: project.preemptible,
        start_deadline_ms: project.start_within_ms,
        warning: project
            .warn_before
            .map(|(before_ms, signal)| WarningSpec { before_ms, signal }),
        after: typed.after.clone(),
        spread: project.spread.unwrap_or(false),
    })
}

/// Flags win; tags and environment are joined by key. Whole GPUs and a part of one are one choice.
fn over(flags: Project, file: Project) -> Project {
    let chosen = flags.gpus.is_some() || flags.gpu_share_milli.is_some();
    let (file_gpus, file_share) = if chosen {
        (None, None)
    } else {
        (file.gpus, file.gpu_share_milli)
    };
    let join = |mut below: std::collections::BTreeMap<String, String>, above| {
        below.extend(above);
        below
    };
    Project {
        name: flags.name.or(file.name),
        gpus: flags.gpus.or(file_gpus),
        gpu_share_milli: flags.gpu_share_milli.or(file_share),
        gpu_memory_mib: flags.gpu_memory_mib.or(file.gpu_memory_mib),
        gpu_model: flags.gpu_model.or(file.gpu_model),
        nodes: flags.nodes.or(file.nodes),
        cpu_milli: flags.cpu_milli.or(file.cpu_milli),
        memory_mib: flags.memory_mib.or(file.memory_mib),
        pool: flags.pool.or(file.pool),
        model: flags.model.or(file.model),
        priority: flags.priority.or(file.priority),
        time_limit_ms: flags.time_limit_ms.or(file.time_limit_ms),
        retries: flags.retries.or(file.retries),
        start_within_ms: flags.start_within_ms.or(file.start_within_ms),
        warn_before: flags.warn_before.or(file.warn_before),
        preemptible: flags.preemptible.or(file.preemptible),
        spread: flags.spread.or(file.spread),
        image: flags.image.or(file.image),
        requirements: flags.requirements.or(file.requirements),
        tags: join(file.tags, flags.tags),
        environment: join(file.environment, flags.environment),
    }
}

/// A requirements file is within the folder, and is text: a wheel or an archive named so would fail on
/// the node, minutes later.
fn requirements(folder: &Path, named: &str) -> Result<String, Failure> {
    let path = folder.join(named);
    let real = path.canonicalize().map_err(|_| {
        Failure::usage(format!("{named} is not in the folder {}", folder.display()))
            .hint("--no-requirements installs nothing")
    })?;
    let relative = real.strip_prefix(folder).map_err(|_| {
        Failure::usage(format!(
            "{named} lies outside the folder {}",
            folder.display()
        ))
        .allowed("a file within the folder")
    })?;
    let text = std::fs::read(&real).map_err(on_path("read", &real))?;
    let readable = std::str::from_utf8(&text).is_ok_and(|text| !text.contains('\0'));
    if !readable {
        return Err(Failure::usage(format!("{named} is not a text file"))
            .allowed("one requirement a line, in UTF-8")
            .hint("write it with: pip freeze > requirements.txt"));
    }
    Ok(relative.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(folder: &Path, flags: Project) -> Typed {
        Typed {
            command: vec!["train.py".to_owned()],
            flags,
            folder: folder.to_path_buf(),
            ..Typed::default()
        }
    }

    fn folder(toml: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.py"), "").unwrap();
        std::fs::write(folder.path().join("platform.toml"), toml).unwrap();
        folder
    }

    #[test]
    fn flags_win_over_the_file_and_tags_are_joined() {
        let folder = folder("gpus = 4\npool = 'big'\n[tags]\nteam = 'nlp'\nproject = 'x'\n");
        let flags = Project {
            gpu_share_milli: Some(500),
            tags: [("project".to_owned(), "y".to_owned())].into(),
            ..Project::default()
        };
        let spec = prepare(typed(folder.path(), flags)).unwrap().spec;
        assert_eq!(
            (spec.gpus, spec.gpu_share_milli, spec.pool.as_deref()),
            (None, Some(500), Some("big"))
        );
        assert_eq!(
            spec.tags,
            [
                ("team".to_owned(), "nlp".to_owned()),
                ("project".to_owned(), "y".to_owned())
            ]
            .into()
        );
    }

    #[test]
    fn requirements_are_used_where_they_are_and_refused_where_they_are_no_text() {
        let folder = folder("");
        assert_eq!(
            prepare(typed(folder.path(), Project::default()))
                .unwrap()
                .spec
                .requirements_path,
            None
        );
        std::fs::write(folder.path().join("requirements.txt"), "numpy\n").unwrap();
        assert_eq!(
            prepare(typed(folder.path(), Project::default()))
                .unwrap()
                .spec
                .requirements_path
                .as_deref(),
            Some("requirements.txt")
        );
        std::fs::write(folder.path().join("requirements.txt"), b"PK\x03\x04\0").unwrap();
        insta::assert_snapshot!(prepare(typed(folder.path(), Project::default())).unwrap_err(), @r"
        requirements.txt is not a text file
          allowed: one requirement a line, in UTF-8
          hint: write it with: pip freeze > requirements.txt
        ");
        let none = Typed {
            no_requirements: true,
            ..typed(folder.path(), Project::default())
        };
        assert_eq!(prepare(none).unwrap().spec.requirements_path, None);
        let outside = Project {
            requirements: Some("../x.txt".to_owned()),
            ..Project::default()
        };
        assert_eq!(
            prepare(typed(folder.path(), outside)).unwrap_err().exit,
            crate::failure::exit::USAGE
        );
    }

    #[test]
    fn a_script_that_is_ignored_is_not_silently_left_behind() {
        let folder = folder("");
        std::fs::write(folder.path().join(".gitignore"), "train.py\n").unwrap();
        insta::assert_snapshot!(prepare(typed(folder.path(), Project::default())).unwrap_err(), @r"
        train.py is ignored by .gitignore or .platformignore, so it is not packed
          hint: echo '!train.py' >> .platformignore
        ");
    }
}
