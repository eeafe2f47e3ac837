//! One platform in a folder of its own: started, killed, started again, asked by its own binary.

use crate::http::Http;
use crate::wait::eventually;
use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::TempDir;

/// The `platform` binary: `$PLATFORM_BINARY`, else the one in the target folder of this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PLATFORM_BINARY") {
        return PathBuf::from(path);
    }
    let this =
        std::env::current_exe().unwrap_or_else(|error| panic!("no path of this test: {error}"));
    // target/debug/deps/TEST, or target/debug/BENCH.
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("platform"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no `platform` binary near {}: build it with `cargo build --package platform-cli`, or set PLATFORM_BINARY",
            this.display()
        )
    })
}

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Simulated devices, as for `--devices`.
    pub devices: Vec<String>,
    /// More arguments of `platform up`.
    pub arguments: Vec<String>,
    /// More environment of `platform up`.
    pub environment: Vec<(String, String)>,
    /// Data folder, when not within the home.
    pub data: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            devices: vec!["8xA100-80G".to_owned()],
            arguments: Vec::new(),
            environment: Vec::new(),
            data: None,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; 128+N for signal N, as a shell says it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output of a command that must have ended with `code`.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &str {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        &self.stdout
    }

    /// One JSON document on standard output, from a command that must have worked.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.expect(0);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The error as `--json` prints it.
    #[track_caller]
    pub fn error(&self, code: i32) -> Value {
        self.expect(code);
        let line = self.stderr.lines().last().unwrap_or("");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {:?}", self.stderr))
    }
}

/// A running `platform up`, its home and everything under it. Dropping it ends all of its processes.
pub struct Platform {
    folder: TempDir,
    options: Options,
    child: Option<Child>,
    address: Option<SocketAddr>,
    token: String,
}

impl Platform {
    /// Eight simulated A100.
    pub fn start() -> Platform {
        Self::start_with(Options::default())
    }

    /// With simulated devices.
    pub fn with_devices(devices: &[&str]) -> Platform {
        let devices = devices.iter().map(|device| (*device).to_owned()).collect();
        Self::start_with(Options {
            devices,
            ..Options::default()
        })
    }

    /// Started and ready.
    pub fn start_with(options: Options) -> Platform {
        let mut platform = Self::prepare(options);
        platform.launch();
        platform.ready();
        platform
    }

    /// A home, and nothing started in it.
    pub fn prepare(options: Options) -> Platform {
        let folder = tempfile::Builder::new()
            .prefix("platform-e2e-")
            .tempdir()
            .unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let platform = Platform {
            folder,
            options,
            child: None,
            address: None,
            token: String::new(),
        };
        fs::create_dir(platform.empty()).unwrap_or_else(|error| panic!("no empty folder: {error}"));
        platform
    }

    /// The folder of this test: the home, and what the test keeps beside it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `PLATFORM_HOME`.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A folder without anything to pack, where commands run unless told otherwise.
    fn empty(&self) -> PathBuf {
        self.folder.path().join("empty")
    }

    /// Everything that `platform up` printed, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    /// Starts the process and does not wait for it. The second time it takes the same port.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("up.log"))
            .and_then(|out| Ok((out.try_clone()?, out)));
        let (out, err) = log.unwrap_or_else(|error| panic!("no log file: {error}"));
        let mut command = self.command(&["up"]);
        command.arg("--listen").arg(
            self.address
                .map_or("127.0.0.1:0".to_owned(), |address| address.to_string()),
        );
        for devices in &self.options.devices {
            command.args(["--devices", devices]);
        }
        if let Some(data) = &self.options.data {
            command.arg("--data").arg(data);
        }
        command
            .args(&self.options.arguments)
            .envs(self.options.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        self.child = Some(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary().display())),
        );
    }

    /// Waits until it answers and its node is connected.
    #[track_caller]
    pub fn ready(&mut self) {
        eventually("the platform answers", || {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
            {
                panic!("`platform up` ended with {status}: {}", self.log());
            }
            self.find();
            let http = Http {
                address: self.address?,
                token: Some(self.token.clone()),
            };
            let nodes = http.send("GET", "/v1/nodes", None, b"").ok()?;
            let connected = |node: &Value| node["heard_ago_ms"].is_u64();
            nodes.json()["nodes"]
                .as_array()?
                .iter()
                .any(connected)
                .then_some(())
        });
    }

    /// Reads where it listens and with which token, once it has written them.
    pub fn find(&mut self) -> Option<()> {
        let text = fs::read_to_string(self.home().join("client.json")).ok()?;
        let client: Value = serde_json::from_str(&text).ok()?;
        let url = client["url"].as_str()?;
        self.address = Some(url.strip_prefix("http://")?.parse().ok()?);
        self.token = client["token"].as_str()?.to_owned();
        Some(())
    }

    /// `kill -9`, as a crash does it: its runs go on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop, once, and waits.
    pub fn stop(&mut self, with: rustix::process::Signal) -> ExitStatus {
        let mut child = self
            .child
            .take()
            .unwrap_or_else(|| panic!("it does not run"));
        signal(child.id(), with);
        child
            .wait()
            .unwrap_or_else(|error| panic!("cannot wait: {error}"))
    }

    /// `kill -9` and up again, ready.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.launch();
        self.ready();
    }

    /// Process id of `platform up`.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The exit status of `platform up`, when it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// HTTP as the local administrator.
    pub fn http(&self) -> Http {
        Http {
            address: self.address.unwrap_or_else(|| panic!("it was never ready")),
            token: Some(self.token.clone()),
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.http().address)
    }

    /// The binary with arguments, in this home and in no other.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .current_dir(self.empty())
            .env("PLATFORM_HOME", self.home())
            .env("NO_COLOR", "1");
        for name in [
            "PLATFORM_URL",
            "PLATFORM_TOKEN",
            "PLATFORM_SPOOL",
            "PLATFORM_RUN_ID",
            "PLATFORM_LOG",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }

    /// Runs the binary to its end in a folder.
    #[track_caller]
    pub fn cli_in(&self, folder: &Path, arguments: &[&str]) -> Finished {
        finish(self.command(arguments).current_dir(folder))
    }

    /// Makes a folder of code under the test's folder.
    pub fn code(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (path, content) in files {
            let path = folder.join(path);
            let made = fs::create_dir_all(path.parent().unwrap_or(&folder))
                .and_then(|()| fs::write(&path, content));
            made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        folder
    }

    /// Submits a spec and answers the run's id.
    #[track_caller]
    pub fn submit(&self, key: &str, spec: &Value) -> String {
        let body = serde_json::json!({ "spec": spec });
        let reply = self.http().change("POST", "/v1/runs", key, &body);
        let reply = reply.unwrap_or_else(|error| panic!("submit: {error}"));
        let answer = reply.expect_ok();
        answer["run"]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no run in {answer}"))
            .to_owned()
    }

    /// One run as the API shows it.
    #[track_caller]
    pub fn run(&self, id: &str) -> Value {
        self.http().get(&format!("/v1/runs/{id}"))
    }

    /// Waits until a run is in one of these states.
    #[track_caller]
    pub fn wait_for(&self, id: &str, states: &[&str]) -> Value {
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(&format!("{id} is one of {states:?}"), || {
                let reply = self
                    .http()
                    .send("GET", &format!("/v1/runs/{id}"), None, b"")
                    .ok()?;
                last = reply.json();
                states
                    .contains(&last["state"].as_str()?)
                    .then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| {
            panic!(
                "{id} never was one of {states:?}; last: {last:#}\n{}",
                self.log()
            )
        })
    }

    /// Waits until a run has ended.
    #[track_caller]
    pub fn wait_for_end(&self, id: &str) -> Value {
        self.wait_for(id, &["succeeded", "failed", "cancelled"])
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- platform up said:\n{}", self.log());
        }
        self.kill();
        kill_all_of(self.folder.path());
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Finished {
        code: code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Exit code as a shell says it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// Sends a signal to a process that this test started.
pub fn signal(process: u32, signal: rustix::process::Signal) {
    if let Some(process) = rustix::process::Pid::from_raw(process.cast_signed()) {
        let _ = rustix::process::kill_process(process, signal);
    }
}

/// Ends every process that was started with this folder in its arguments or its environment: the
/// launcher and workloads outlive `platform up` by design.
pub fn kill_all_of(folder: &Path) {
    let needle = folder.as_os_str().as_encoded_bytes();
    let this = std::process::id();
    // Twice: a process may fork between the reading and the killing.
    for _ in 0..2 {
        for process in processes() {
            if process == this {
                continue;
            }
            let mentions = |file: &str| {
                fs::read(format!("/proc/{process}/{file}"))
                    .is_ok_and(|content| content.windows(needle.len()).any(|part| part == needle))
            };
            if mentions("cmdline") || mentions("environ") {
                signal(process, rustix::process::Signal::KILL);
            }
        }
    }
}

fn processes() -> Vec<u32> {
    let entries = match fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("/proc: {error}"),
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
