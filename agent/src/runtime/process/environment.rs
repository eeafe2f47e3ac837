//! Cached virtual environments: built once for equal requirements, shared by every run that asks.
//!
//! The key is the content: requirements, what the command needs beside them, and the node's Python. A
//! marker file says that one is complete; without it the folder is rubbish of an interrupted build.

use super::leftovers;
use crate::blobs::hex;
use crate::launcher::{read_exit, replace};
use crate::package::storage_failure;
use crate::runtime::{Attempt, LaunchFailure, Progress};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::process::Command;
use tokio::sync::OnceCell;

const MARKER: &str = "complete";
/// In an attempt's folder: the environment that it lives in. It stands until the attempt has ended, also
/// when the agent that wrote it is long gone.
const HELD: &str = "environment";
/// Files of the locks on environments: who builds or removes one holds it alone, who takes one into use
/// beside others.
const LOCKS: &str = "locks";
/// How often a lock that another process holds is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// An environment on its way out, beside those that are there.
const EVICTED: &str = "evicted-";
/// Largest requirements file that makes sense; a model or an archive given by mistake is larger.
const REQUIREMENTS_LIMIT_BYTES: u64 = 1 << 20;
/// How much of the installer's output goes into the message.
const TAIL_BYTES: u64 = 2048;
/// The module that runs notebooks, and what it needs in the environment.
const NOTEBOOK_MODULE: &str = "engineersofai_platform.notebook";
const NOTEBOOK_PACKAGES: &[&str] = &["nbclient", "ipykernel"];

type Gate = Arc<tokio::sync::Mutex<()>>;

/// The node's Python.
#[derive(Debug, Clone)]
struct Python {
    program: PathBuf,
    /// Version, implementation and platform: an environment fits only these.
    identity: String,
}

/// The cache of environments.
#[derive(Debug)]
pub struct Environments {
    folder: PathBuf,
    programs: PathBuf,
    interpreter: PathBuf,
    limit: usize,
    python: OnceCell<Python>,
    installer: OnceCell<Option<PathBuf>>,
    gates: Mutex<HashMap<String, Gate>>,
}

/// The right to one environment, also among processes: two `platform run --dev` share a cache. It ends
/// with the process that holds it; an installer does not inherit it.
#[derive(Debug)]
struct Lock {
    _file: File,
}

impl Environments {
    /// Opens the cache; `limit` environments are kept, the least recently used go first.
    pub fn open(folder: PathBuf, interpreter: PathBuf, limit: usize) -> io::Result<Self> {
        let programs = folder.join("programs");
        fs::create_dir_all(&programs)?;
        fs::create_dir_all(folder.join(LOCKS))?;
        // What an agent before us had no time to remove.
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(EVICTED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        if let Some(path) = find_program(&interpreter) {
            let link = programs.join("python");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(path, link)?;
        }
        Ok(Self {
            folder,
            programs,
            interpreter,
            limit,
            python: OnceCell::new(),
            installer: OnceCell::new(),
            gates: Mutex::new(HashMap::new()),
        })
    }

    /// A folder with `python`, for the end of PATH on machines that only have `python3`.
    pub fn fallback_programs(&self) -> &Path {
        &self.programs
    }

    /// The environment an attempt needs, built if nobody has; none when it needs none.
    pub async fn ensure(
        &self,
        attempt: &Attempt,
        progress: &Progress,
    ) -> Result<Option<PathBuf>, LaunchFailure> {
        let workload = &attempt.assignment.workload;
        let requirements = read_requirements(attempt)?;
        let extras = extra_packages(&workload.command);
        if requirements.is_none() && extras.is_empty() {
            return Ok(None);
        }
        let python = self.python().await?.clone();
        let (file, text) = requirements.unzip();
        let mut hasher = Sha256::new();
        for part in [
            text.as_deref().unwrap_or("").as_bytes(),
            extras.join(" ").as_bytes(),
            python.identity.as_bytes(),
        ] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let key = hex(&hasher.finalize());
        let environment = self.folder.join(&key[..32]);
        if self.take_if_free(&environment, attempt)? {
            return Ok(Some(environment));
        }
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(key.clone()).or_default())
        };
        let turn = match gate.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                progress.report("waiting for another run to install the same requirements");
                gate.lock().await
            }
        };
        if self.take_if_free(&environment, attempt)? {
            return Ok(Some(environment));
        }
        let lock = self.lock(&environment, progress).await?;
        if lock.take(&environment, attempt)? {
            return Ok(Some(environment));
        }
        progress.report("installing requirements");
        let built = self
            .build(&python, &environment, file.as_deref(), extras, attempt)
            .await;
        drop(turn);
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        // Who still waits keeps the gate: a newcomer with another would build in the same folder.
        if Arc::strong_count(&gate) <= 2 {
            gates.remove(&key);
        }
        drop(gates);
        built?;
        // Held before anything is chosen to go, so that this one is not.
        let taken = lock.take(&environment, attempt)?;
        drop(lock);
        self.evict(&attempt.folder);
        if taken {
            Ok(Some(environment))
        } else {
            Err(LaunchFailure::node(format!(
                "the environment {} was removed while it was built",
                environment.display()
            )))
        }
    }

    async fn python(&self) -> Result<&Python, LaunchFailure> {
        self.python
            .get_or_try_init(|| async {
                let question = "import sys, platform; print(sys.executable, sys.implementation.name, platform.python_version(), platform.machine(), sep='\\n')";
                let output = Command::new(&self.interpreter)
                    .args(["-c", question])
                    .stdin(Stdio::null())
                    .output()
                    .await
                    .map_err(|error| {
                        LaunchFailure::node(format!(
                            "requirements need Python, and {} does not run on this node: {error}",
                            self.interpreter.display()
                        ))
                    })?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                match text.lines().next() {
                    Some(program) if output.status.success() => Ok(Python {
                        program: PathBuf::from(program),
                        identity: text,
                    }),
                    _ => Err(LaunchFailure::node(format!(
                        "{} on this node ended with {}",
                        self.interpreter.display(),
                        output.status
                    ))),
                }
            })
            .await
    }

    async fn uv(&self) -> Option<PathBuf> {
        self.installer
            .get_or_init(|| async {
                let found = find_program(Path::new("uv"))?;
                // A shim of a version manager may be there with nothing behind it.
                let works = Command::new(&found)
                    .arg("--version")
                    .stdin(Stdio::null())
                    .output()
                    .await
                    .is_ok_and(|output| output.status.success());
                works.then_some(found)
            })
            .await
            .clone()
    }

    async fn build(
        &self,
        python: &Python,
        environment: &Path,
        requirements: Option<&Path>,
        extras: &[&str],
        attempt: &Attempt,
    ) -> Result<(), LaunchFailure> {
        // The lock says that nobody else builds here: what still writes lost its agent.
        let folder = environment.to_owned();
        tokio::task::spawn_blocking(move || leftovers::kill_installers(&folder))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| storage_failure(environment, &error))?;
        match fs::remove_dir_all(environment) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(storage_failure(environment, &error));
            }
            _ => {}
        }
        let log = attempt.log();
        let uv = self.uv().await;
        let mut create;
        let mut install;
        if let Some(uv) = &uv {
            create = Command::new(uv);
            create
                .args(["venv", "--quiet", "--python"])
                .arg(&python.program);
            install = Command::new(uv);
            install
                .args(["pip", "install", "--python"])
                .arg(environment.join("bin/python"));
        } else {
            create = Command::new(&python.program);
            create.args(["-m", "venv"]);
            install = Command::new(environment.join("bin/python"));
            install.args([
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "--progress-bar",
                "off",
            ]);
        }
        create.arg(environment);
        for installer in [&mut create, &mut install] {
            installer.env(leftovers::INSTALLS_INTO, environment);
        }
        if let Err(tail) = run(create, &attempt.work(), &log).await? {
            return Err(LaunchFailure::node(format!(
                "cannot make a virtual environment with {}: {tail}",
                python.program.display()
            )));
        }
        let mut folder = attempt.work();
        let mut empty = extras.is_empty();
        if let Some(file) = requirements {
            install.arg("-r").arg(file);
            // Paths within the file are relative to it.
            folder = file.parent().map_or(folder, Path::to_owned);
            empty = empty && fs::metadata(file).is_ok_and(|about| about.len() == 0);
        }
        install.args(extras);
        if !empty && let Err(tail) = run(install, &folder, &log).await? {
            let _ = fs::remove_dir_all(environment);
            let full = tail.contains("No space left on device");
            let message = format!("installing requirements failed: {tail}");
            return Err(if full {
                LaunchFailure::node(format!("{message}; the node's disk is full"))
            } else {
                LaunchFailure::user(message)
            });
        }
        fs::write(environment.join(MARKER), b"")
            .map_err(|error| storage_failure(environment, &error))
    }

    fn lock_path(&self, environment: &Path) -> PathBuf {
        let name = environment.file_name().unwrap_or_default();
        self.folder.join(LOCKS).join(name)
    }

    /// Takes it if it is complete. One that another builds or removes just now is not.
    fn take_if_free(&self, environment: &Path, attempt: &Attempt) -> Result<bool, LaunchFailure> {
        let path = self.lock_path(environment);
        match Lock::try_open(&path, FlockOperation::NonBlockingLockShared) {
            Ok(Some(lock)) => lock.take(environment, attempt),
            Ok(None) => Ok(false),
            Err(error) => Err(storage_failure(&path, &error)),
        }
    }

    /// Waits for the right to build it.
    async fn lock(&self, environment: &Path, progress: &Progress) -> Result<Lock, LaunchFailure> {
        let path = self.lock_path(environment);
        let mut told = false;
        loop {
            let lock = Lock::try_open(&path, FlockOperation::NonBlockingLockExclusive)
                .map_err(|error| storage_failure(&path, &error))?;
            if let Some(lock) = lock {
                return Ok(lock);
            }
            if !std::mem::replace(&mut told, true) {
                progress.report("waiting for another run to install the same requirements");
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Removes the least recently used environments past the limit.
    fn evict(&self, attempt: &Path) {
        let (Some(attempts), Ok(entries)) = (attempt.parent(), fs::read_dir(&self.folder)) else {
            return;
        };
        let mut kept: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| Some((used(&entry.path())?, entry.path())))
            .collect();
        kept.sort();
        let surplus = kept.len().saturating_sub(self.limit);
        for (_, path) in kept.into_iter().take(surplus) {
            if let Some(away) = self.put_away(&path, attempts) {
                let _ = fs::remove_dir_all(away);
            }
        }
    }

    /// Moves an environment out of the way of those who look for it, if it may go. One that a live
    /// attempt holds stays, however long ago it was taken into use; so does one used within a day, which
    /// is likely to be wanted again. Both are looked at under the lock: nobody takes it in between.
    fn put_away(&self, path: &Path, attempts: &Path) -> Option<PathBuf> {
        let lock = Lock::try_open(
            &self.lock_path(path),
            FlockOperation::NonBlockingLockExclusive,
        );
        let _lock = lock.ok()??;
        let day = Duration::from_secs(24 * 3600);
        let old = used(path)?.elapsed().is_ok_and(|age| age > day);
        // Who cannot tell what is held removes nothing.
        if !old || held(attempts).ok()?.contains(path) {
            return None;
        }
        // The marker first: half an environment must not look whole. Moved, so that one built anew
        // meanwhile is not what is removed.
        let _ = fs::remove_file(path.join(MARKER));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let away = path.with_file_name(format!("{EVICTED}{name}"));
        fs::rename(path, &away).ok()?;
        Some(away)
    }
}

impl Lock {
    /// The lock, unless another holds one that it cannot stand beside.
    fn try_open(path: &Path, operation: FlockOperation) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the environment is complete; then the attempt holds it from now on, and it counts as used.
    fn take(&self, environment: &Path, attempt: &Attempt) -> Result<bool, LaunchFailure> {
        let marker = OpenOptions::new()
            .write(true)
            .open(environment.join(MARKER));
        let Ok(marker) = marker else {
            return Ok(false);
        };
        let _ = marker.set_modified(SystemTime::now());
        replace(
            &attempt.folder,
            HELD,
            environment.as_os_str().as_encoded_bytes(),
        )
        .map_err(|error| storage_failure(&attempt.folder, &error))?;
        Ok(true)
    }
}

/// When an environment was last taken into use; none when it is not complete.
fn used(environment: &Path) -> Option<SystemTime> {
    fs::metadata(environment.join(MARKER)).ok()?.modified().ok()
}

/// The environments that attempts in this folder hold: those whose end is not on the disk.
fn held(attempts: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(attempts)? {
        let folder = entry?.path();
        if read_exit(&folder).is_some() {
            continue;
        }
        match fs::read(folder.join(HELD)) {
            Ok(path) => {
                held.insert(PathBuf::from(OsString::from_vec(path)));
            }
            // It needs none, or its folder is going just now.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// What a command needs beside the requirements.
fn extra_packages(command: &[String]) -> &'static [&'static str] {
    let runs_notebook = command
        .windows(2)
        .any(|pair| pair[0] == "-m" && pair[1] == NOTEBOOK_MODULE);
    if runs_notebook {
        NOTEBOOK_PACKAGES
    } else {
        &[]
    }
}

fn read_requirements(attempt: &Attempt) -> Result<Option<(PathBuf, String)>, LaunchFailure> {
    let asked = &attempt.assignment.workload.requirements_path;
    if asked.is_empty() {
        return Ok(None);
    }
    let work = attempt.work();
    let refused = |why: &str| LaunchFailure::user(format!("requirements file {asked:?} {why}"));
    // Beneath the package and nowhere else, links included.
    let folder = cap_std::fs::Dir::open_ambient_dir(&work, cap_std::ambient_authority())
        .map_err(|error| storage_failure(&work, &error))?;
    let file = folder
        .open(asked)
        .map_err(|error| refused(&format!("cannot be read in the package: {error}")))?;
    let mut bytes = Vec::new();
    file.take(REQUIREMENTS_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(&format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > REQUIREMENTS_LIMIT_BYTES {
        return Err(refused(&format!(
            "is larger than {REQUIREMENTS_LIMIT_BYTES} bytes; is it a list of packages?"
        )));
    }
    if bytes.contains(&0) {
        return Err(refused(
            "is a binary file; it must be text with one package a line",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        refused(&format!(
            "is not UTF-8 text (byte {} is wrong); save it as UTF-8",
            error.utf8_error().valid_up_to()
        ))
    })?;
    Ok(Some((work.join(asked), text)))
}

/// Kills the whole group of an installer that is given up.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Runs an installer with its output in the run's log; on failure the end of that output.
async fn run(
    mut command: Command,
    folder: &Path,
    log: &Path,
) -> Result<Result<(), String>, LaunchFailure> {
    let mut output = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(log)
        .map_err(|error| storage_failure(log, &error))?;
    let start = output
        .seek(SeekFrom::End(0))
        .map_err(|error| storage_failure(log, &error))?;
    let clone = |file: &File| {
        file.try_clone()
            .map_err(|error| storage_failure(log, &error))
    };
    let child = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(clone(&output)?)
        .stderr(clone(&output)?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut group = Group(
        child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())),
    );
    let status = child.wait().await;
    group.0 = None;
    match status {
        Ok(status) if status.success() => Ok(Ok(())),
        Ok(status) => Ok(Err(format!("{status}: {}", tail(&mut output, start)))),
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn tail(output: &mut File, start: u64) -> String {
    let mut text = Vec::new();
    let end = output.seek(SeekFrom::End(0)).unwrap_or(start);
    let from = start.max(end.saturating_sub(TAIL_BYTES));
    let _ = output.seek(SeekFrom::Start(from));
    let _ = output.take(TAIL_BYTES).read_to_end(&mut text);
    let _ = output.flush();
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_core::{Assignment, Intent, Key, Workload};

    struct Place {
        folder: tempfile::TempDir,
        environments: Environments,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let environments = opened(folder.path());
            Self {
                folder,
                environments,
            }
        }

        /// An attempt with requirements of its own.
        fn attempt(&self, run: u64, requirements: &str) -> Attempt {
            let folder = self.folder.path().join(format!("attempts/run-{run}-1-0"));
            fs::create_dir_all(folder.join("work")).unwrap();
            fs::write(folder.join("work/requirements.txt"), requirements).unwrap();
            let key = Key {
                run,
                attempt: 1,
                member: 0,
            };
            let workload = Workload {
                requirements_path: "requirements.txt".to_owned(),
                ..Workload::default()
            };
            let assignment = Assignment {
                key,
                epoch: 1,
                intent: Intent::Run,
                stop_reason: String::new(),
                grace_ms: 0,
                workload,
                devices: Vec::new(),
                member_count: 1,
                member_nodes: Vec::new(),
                fence: false,
                cpu_milli: 0,
                memory_mib: 0,
            };
            Attempt { assignment, folder }
        }

        async fn ensure(&self, attempt: &Attempt) -> PathBuf {
            let (events, _heard) = tokio::sync::mpsc::unbounded_channel();
            let progress = Progress::new(attempt.key(), events);
            let built = self.environments.ensure(attempt, &progress).await;
            built.unwrap().unwrap()
        }
    }

    fn opened(folder: &Path) -> Environments {
        Environments::open(folder.join("environments"), "python3".into(), 1).unwrap()
    }

    fn age(environment: &Path) {
        let days = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
        let marker = OpenOptions::new()
            .write(true)
            .open(environment.join(MARKER))
            .unwrap();
        marker.set_modified(days).unwrap();
    }

    #[tokio::test]
    async fn an_environment_stays_under_a_long_run_and_a_new_agent_and_goes_after_its_end() {
        let mut place = Place::new();
        let long = place.attempt(1, "# one\n");
        let environment = place.ensure(&long).await;
        age(&environment);
        // The next agent knows no more than the disk.
        place.environments = opened(place.folder.path());
        let second = place.ensure(&place.attempt(2, "# two\n")).await;
        assert!(environment.join(MARKER).exists());

        fs::remove_dir_all(&long.folder).unwrap();
        place.ensure(&place.attempt(3, "# three\n")).await;
        assert!(!environment.exists(), "nobody holds it any more");
        assert!(second.join(MARKER).exists(), "used within a day");
    }

    /// What a killed agent leaves: an installer in a group of its own, and what that has started.
    fn orphaned_installer(environment: &Path) -> std::process::Child {
        use std::os::unix::process::CommandExt;
        let mut installer = std::process::Command::new("sh");
        installer
            .args([
                "-c",
                "sh -c 'while :; do mkdir -p \"$PLATFORM_INSTALLS_INTO/torn\"; done'; :",
            ])
            .env(leftovers::INSTALLS_INTO, environment)
            .process_group(0);
        installer.spawn().unwrap()
    }

    #[tokio::test]
    async fn an_installer_that_outlived_its_agent_is_killed_before_its_environment_is_built_anew() {
        let place = Place::new();
        let environment = place.ensure(&place.attempt(1, "# one\n")).await;
        // As an agent that was killed in the midst of it leaves it.
        fs::remove_file(environment.join(MARKER)).unwrap();
        let mut orphan = orphaned_installer(&environment);
        let mut elsewhere = orphaned_installer(&place.folder.path().join("elsewhere"));
        while !environment.join("torn").exists() {
            tokio::task::yield_now().await;
        }
        place.ensure(&place.attempt(2, "# one\n")).await;
        assert!(!environment.join("torn").exists());
        assert!(!orphan.wait().unwrap().success());
        assert!(elsewhere.try_wait().unwrap().is_none(), "another's goes on");
        leftovers::kill_installers(&place.folder.path().join("elsewhere")).unwrap();
        elsewhere.wait().unwrap();
    }

    #[tokio::test]
    async fn two_processes_do_not_build_one_environment_at_once() {
        let place = Place::new();
        let environment = place.ensure(&place.attempt(1, "# one\n")).await;
        fs::remove_file(environment.join(MARKER)).unwrap();
        let name = environment.file_name().unwrap();
        let path = place.folder.path().join("environments/locks").join(name);
        let other = File::open(&path).unwrap();
        flock(&other, FlockOperation::LockExclusive).unwrap();
        let attempt = place.attempt(2, "# one\n");
        let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let progress = Progress::new(attempt.key(), events);
        let build = place.environments.ensure(&attempt, &progress);
        tokio::pin!(build);
        let told = tokio::select! {
            _ = &mut build => panic!("it did not wait"),
            told = heard.recv() => told.unwrap(),
        };
        assert!(format!("{told:?}").contains("waiting for another run"));
        // The other is done: what it built is taken as it is.
        fs::write(environment.join(MARKER), b"").unwrap();
        drop(other);
        build.await.unwrap();
        assert!(heard.try_recv().is_err(), "nothing was installed");
    }

    /// The lock on an environment, as another process has it.
    fn locked(environment: &Path, operation: FlockOperation) -> File {
        let locks = environment.parent().unwrap().join(LOCKS);
        let file = File::open(locks.join(environment.file_name().unwrap())).unwrap();
        flock(&file, operation).unwrap();
        file
    }

    #[tokio::test]
    async fn an_environment_that_another_process_takes_just_now_is_not_removed_under_it() {
        let place = Place::new();
        let first = place.attempt(1, "# one\n");
        let environment = place.ensure(&first).await;
        fs::remove_dir_all(&first.folder).unwrap();
        age(&environment);
        // It is looked at before the other has written down that it holds it.
        let other = locked(&environment, FlockOperation::LockShared);
        place.ensure(&place.attempt(2, "# two\n")).await;
        assert!(environment.join(MARKER).exists());

        drop(other);
        place.ensure(&place.attempt(3, "# three\n")).await;
        assert!(!environment.exists(), "nobody wants it any more");
    }

    #[tokio::test]
    async fn an_environment_that_another_process_removes_just_now_is_not_taken_but_built_anew() {
        let place = Place::new();
        let environment = place.ensure(&place.attempt(1, "# one\n")).await;
        // The other has seen that nobody holds it, and removes it next.
        let other = locked(&environment, FlockOperation::LockExclusive);
        let attempt = place.attempt(2, "# one\n");
        let build = place.ensure(&attempt);
        tokio::pin!(build);
        assert!(futures::poll!(&mut build).is_pending(), "it did not wait");
        assert!(!attempt.folder.join(HELD).exists());
        fs::remove_dir_all(&environment).unwrap();
        drop(other);
        assert_eq!(build.await, environment);
        assert!(environment.join(MARKER).exists());
    }
}
