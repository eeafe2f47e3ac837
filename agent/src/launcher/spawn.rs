//! One fork and exec: the only unsafe lines of the agent.

use super::protocol::StartRequest;
use super::{STARTED, replace};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// What became of a start.
pub(super) enum Spawned {
    /// It lives as this process.
    Process(u32),
    /// This name was started before.
    Known,
    /// It cannot be started.
    Failed { message: String, node_fault: bool },
}

/// Starts it, unless this name was ever started before.
pub(super) fn spawn(
    request: &StartRequest,
    launcher: rustix::process::Pid,
) -> (Spawned, Option<File>) {
    // Creating this file is the right to start: O_EXCL decides, across restarts of both of us.
    let started = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(request.folder.join(STARTED));
    let started = match started {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return (Spawned::Known, None);
        }
        Err(error) => {
            let message = format!("cannot write in {}: {error}", request.folder.display());
            return (node_failure(message), None);
        }
    };
    (fork(request, launcher), Some(started))
}

fn node_failure(message: String) -> Spawned {
    Spawned::Failed {
        message,
        node_fault: true,
    }
}

fn fork(request: &StartRequest, launcher: rustix::process::Pid) -> Spawned {
    let Some((program, arguments)) = request.command.split_first() else {
        return Spawned::Failed {
            message: "the command is empty".to_owned(),
            node_fault: false,
        };
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(request.folder.join("log"))
        .and_then(|log| Ok((log.try_clone()?, log)));
    let (output, errors) = match log {
        Ok(both) => both,
        Err(error) => return node_failure(format!("cannot open the log: {error}")),
    };
    let mut groups = Vec::with_capacity(request.control_groups.len());
    for path in &request.control_groups {
        match OpenOptions::new().write(true).open(path) {
            Ok(file) => groups.push(file),
            Err(error) => return node_failure(format!("cannot open {}: {error}", path.display())),
        }
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(
            request
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(&request.working_folder)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0);
    let in_child = move || {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The launcher may have died before that call: then nobody would ever kill us.
        if getppid() != Some(launcher) {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::OWNERDEAD.raw_os_error(),
            ));
        }
        for group in &groups {
            rustix::io::write(group.as_fd(), b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes the system calls prctl, getppid and write on
    // descriptors opened before the fork. It allocates nothing, takes no lock and touches no state of
    // the parent; the launcher has one thread, so no lock can be held by another at the fork either.
    #[allow(
        unsafe_code,
        reason = "PR_SET_PDEATHSIG has no safe way in between fork and exec"
    )]
    unsafe {
        command.pre_exec(in_child);
    }
    match command.spawn() {
        Ok(child) => Spawned::Process(child.id()),
        Err(error) => refused(request, program, &error),
    }
}

/// Says whose fault a failed exec is, and what was looked for.
fn refused(request: &StartRequest, program: &str, error: &io::Error) -> Spawned {
    let path = request
        .environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value.as_str());
    let (message, node_fault) = match error.kind() {
        io::ErrorKind::NotFound if !request.working_folder.is_dir() => (
            format!(
                "no such working folder: {}",
                request.working_folder.display()
            ),
            false,
        ),
        io::ErrorKind::NotFound if program.contains('/') => (
            format!(
                "command not found: {program:?}, or the interpreter that its first line names; looked in {}",
                request.working_folder.display()
            ),
            false,
        ),
        io::ErrorKind::NotFound => (
            format!("command not found: {program:?}; looked in PATH={path}"),
            false,
        ),
        io::ErrorKind::PermissionDenied => (
            format!("cannot run {program:?}: permission denied; is it executable?"),
            false,
        ),
        io::ErrorKind::ArgumentListTooLong => (
            format!("cannot run {program:?}: its arguments and environment are too long"),
            false,
        ),
        io::ErrorKind::InvalidInput => (
            format!("cannot run {program:?}: an argument or variable holds a zero byte"),
            false,
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => (
            format!("cannot run {program:?}: not a program and no \"#!\" line"),
            false,
        ),
        _ => (format!("cannot start {program:?}: {error}"), true),
    };
    Spawned::Failed {
        message,
        node_fault,
    }
}

/// Fills in the started record, for people and for adoption after the launcher's death.
pub(super) fn record(mut started: File, running: &impl serde::Serialize) {
    // Its existence is what counts; a full disk must not undo a start that happened.
    if let Ok(content) = serde_json::to_vec(running) {
        let _ = started.write_all(&content);
    }
}

/// Writes the exit record; false when the disk refuses.
pub(super) fn record_exit(
    folder: &std::path::Path,
    exit: &impl serde::Serialize,
) -> io::Result<()> {
    replace(folder, super::EXIT, &serde_json::to_vec(exit)?)
}
