//! A whole agent against a scripted coordinator: real processes, real files, real sockets.

mod support;

use agent::AgentConfig;
use agent::telemetry::DeviceSource;
use platform_proto::agent as wire;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use support::{Coordinator, assignment, hash};
use tokio_util::sync::CancellationToken;

struct Node {
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<Result<(), agent::AgentError>>>,
}

impl Node {
    fn start(coordinator: &Coordinator) -> Self {
        let mut node = Self {
            folder: tempfile::tempdir().unwrap(),
            shutdown: CancellationToken::new(),
            running: None,
        };
        node.again(coordinator);
        node
    }

    fn again(&mut self, coordinator: &Coordinator) {
        let mut config =
            AgentConfig::new(&coordinator.url, "secret", "node-a", self.folder.path()).unwrap();
        config.launcher = PathBuf::from(env!("CARGO_BIN_EXE_agent-harness"));
        config.devices = DeviceSource::None;
        config.containers = false;
        self.shutdown = CancellationToken::new();
        self.running = Some(tokio::spawn(agent::run(config, self.shutdown.clone())));
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
    }

    fn attempt(&self, run: u64) -> PathBuf {
        self.folder.path().join(format!("attempts/run-{run}-1-0"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // The launcher dies with its folder's test, and with it what it started.
        stop_launcher(self.folder.path());
    }
}

/// The launcher that serves this folder, found by its lock's path in its arguments.
fn launcher_of(folder: &Path) -> Option<u32> {
    let socket = folder.canonicalize().ok()?.join("launcher/launcher.sock");
    let socket = socket.display().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let ours = line
            .split(|byte| *byte == 0)
            .any(|part| part == socket.as_bytes());
        ours.then_some(process)
    })
}

fn stop_launcher(folder: &Path) {
    if let Some(process) = launcher_of(folder) {
        let _ = Command::new("kill")
            .args(["-9", &process.to_string()])
            .status();
    }
}

/// An agent as a process; it and its launcher end with the test, also when that fails.
struct Killed {
    process: Child,
    folder: PathBuf,
}

impl Killed {
    /// Its process is gone already, and its launcher serves the next one.
    fn forget(mut self) {
        self.folder = PathBuf::new();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.folder.exists() {
            stop_launcher(&self.folder);
        }
    }
}

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    zstd::encode_all(archive.into_inner().unwrap().as_slice(), 1).unwrap()
}

fn last(coordinator: &Coordinator, run: u64) -> wire::MemberReport {
    coordinator.with(|seen| seen.last(run).cloned().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_from_wish_to_end_and_its_log_and_folder_are_looked_after() {
    let coordinator = Coordinator::start().await;
    let node = Node::start(&coordinator);
    let script = "echo hello from $PLATFORM_RUN_ID rank $RANK/$WORLD_SIZE in $PWD; env | grep -c PLATFORM_TOKEN; exit 3";
    coordinator.wish(vec![assignment(17, script)]).await;
    coordinator.until("the end", |seen| seen.ended(17)).await;
    let report = last(&coordinator, 17);
    assert_eq!(report.end(), wire::EndKind::Exited);
    assert_eq!(report.exit_code, 3);
    coordinator
        .until("drained", |seen| seen.drained == [17])
        .await;
    let (path, sha256) = coordinator.with(|seen| {
        let record = &seen.journals[&("run-17".to_owned(), "agent-1-0".to_owned())][0];
        (
            record["path"].clone(),
            record["sha256"].as_str().unwrap().to_owned(),
        )
    });
    assert_eq!(path, "logs/attempt-1-member-0.log");
    let log = coordinator.with(|seen| String::from_utf8(seen.blobs[&sha256].clone()).unwrap());
    assert!(log.starts_with("hello from run-17 rank 0/1 in "), "{log}");
    assert!(log.ends_with("\n0\n"), "{log}");
    coordinator.retire(17).await;
    // A second run passes through after it: by then the first is forgotten.
    coordinator.wish(vec![assignment(18, "true")]).await;
    coordinator.until("the second", |seen| seen.ended(18)).await;
    let folder = node.attempt(17);
    while folder.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_polite_first_and_told_with_its_reason() {
    let coordinator = Coordinator::start().await;
    let _node = Node::start(&coordinator);
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    coordinator.wish(vec![assignment(1, script)]).await;
    coordinator.until("running", |seen| seen.running(1)).await;
    coordinator.read_log(1, 1, true).await;
    coordinator
        .until("the trap is set", |seen| {
            seen.logs
                .get(&1)
                .is_some_and(|log| log.0.starts_with(b"ready"))
        })
        .await;
    coordinator.stop(1, "cancelled by ada").await;
    coordinator.until("the end", |seen| seen.ended(1)).await;
    assert_eq!(last(&coordinator, 1).end(), wire::EndKind::Stopped);
    assert_eq!(last(&coordinator, 1).message, "cancelled by ada");
    coordinator
        .until("the log's end", |seen| seen.logs[&1].1)
        .await;
    // The shell may add a line about the sleep that died with it.
    coordinator.with(|seen| assert!(seen.logs[&1].0.ends_with(b"bye\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_a_run_that_ignores_it_by_force() {
    let coordinator = Coordinator::start().await;
    let _node = Node::start(&coordinator);
    let mut wish = assignment(1, "trap '' TERM; while :; do sleep 0.05; done");
    wish.grace_ms = 300;
    wish.workload.as_mut().unwrap().time_limit_ms = 300;
    coordinator.wish(vec![wish]).await;
    coordinator.until("the end", |seen| seen.ended(1)).await;
    assert_eq!(last(&coordinator, 1).end(), wire::EndKind::TimeLimit);
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_failures_name_the_user_or_the_node() {
    let coordinator = Coordinator::start().await;
    let _node = Node::start(&coordinator);
    let mut missing = assignment(1, "");
    missing.workload.as_mut().unwrap().command = vec!["no-such-command".into()];
    let mut image = assignment(2, "true");
    image.workload.as_mut().unwrap().image = "debian:12".into();
    let mut gone = assignment(3, "true");
    gone.workload.as_mut().unwrap().source_sha256 = hash(b"never stored");
    let mut binary = assignment(4, "true");
    let workload = binary.workload.as_mut().unwrap();
    workload.source_sha256 = coordinator.store(packed(&[("requirements.txt", b"\x7fELF\0\0")]));
    workload.requirements_path = "requirements.txt".into();
    coordinator.wish(vec![missing, image, gone, binary]).await;
    for (run, node_fault, words) in [
        (1, false, "command not found: \"no-such-command\""),
        (2, true, "no container engine"),
        (3, false, "not in the store"),
        (4, false, "is a binary file"),
    ] {
        coordinator.until("an end", |seen| seen.ended(run)).await;
        let report = last(&coordinator, run);
        assert_eq!(report.end(), wire::EndKind::LaunchFailed);
        assert_eq!(report.node_fault, node_fault, "{report:?}");
        assert!(report.message.contains(words), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_with_equal_requirements_share_one_environment_built_once() {
    let coordinator = Coordinator::start().await;
    let node = Node::start(&coordinator);
    // Offline: a package of ours, from the folder itself.
    let source = coordinator.store(packed(&[
        ("requirements.txt", b"# nothing but a comment\n"),
        (
            "main.py",
            b"import sys; print(sys.prefix); import engineersofai_platform\n",
        ),
    ]));
    let wish = |run| {
        let mut wish = assignment(run, "python main.py");
        let workload = wish.workload.as_mut().unwrap();
        workload.source_sha256.clone_from(&source);
        workload.requirements_path = "requirements.txt".into();
        wish
    };
    coordinator.wish(vec![wish(1), wish(2)]).await;
    for run in [1, 2] {
        coordinator.until("the end", |seen| seen.ended(run)).await;
        let report = last(&coordinator, run);
        assert_eq!(
            (report.end(), report.exit_code),
            (wire::EndKind::Exited, 0),
            "{report:?}"
        );
    }
    let installing = coordinator.with(|seen| {
        seen.reports
            .values()
            .flatten()
            .filter(|report| report.detail == "installing requirements")
            .count()
    });
    assert!(installing <= 1, "built {installing} times");
    let built = fs::read_dir(node.folder.path().join("environments"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("complete").exists())
        .count();
    assert_eq!(built, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_install_is_the_users_fault_and_shows_what_the_installer_said() {
    let coordinator = Coordinator::start().await;
    let _node = Node::start(&coordinator);
    let mut wish = assignment(1, "true");
    let workload = wish.workload.as_mut().unwrap();
    workload.source_sha256 =
        coordinator.store(packed(&[("requirements.txt", b"./no-such-folder-here\n")]));
    workload.requirements_path = "requirements.txt".into();
    coordinator.wish(vec![wish]).await;
    coordinator.until("the end", |seen| seen.ended(1)).await;
    let report = last(&coordinator, 1);
    assert_eq!(report.end(), wire::EndKind::LaunchFailed);
    assert!(!report.node_fault);
    assert!(report.message.contains("no-such-folder-here"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_stopped_finds_its_runs_again_and_reports_what_ended_meanwhile() {
    let coordinator = Coordinator::start().await;
    let mut node = Node::start(&coordinator);
    let gate = node.folder.path().join("gate");
    let made = Command::new("mkfifo").arg(&gate).status().unwrap();
    assert!(made.success());
    let script = format!("read line < {}; exit 5", gate.display());
    coordinator
        .wish(vec![
            assignment(1, &script),
            assignment(2, "while :; do sleep 0.1; done"),
        ])
        .await;
    coordinator
        .until("both run", |seen| seen.running(1) && seen.running(2))
        .await;
    node.stop().await;
    fs::write(&gate, "go\n").unwrap();
    let exit = node.attempt(1).join("exit.json");
    while !exit.exists() {
        tokio::task::yield_now().await;
    }
    node.again(&coordinator);
    coordinator
        .until("the end that nobody watched", |seen| seen.ended(1))
        .await;
    assert_eq!(last(&coordinator, 1).exit_code, 5);
    coordinator
        .until("the second hello", |seen| seen.hellos.len() == 2)
        .await;
    assert!(coordinator.with(|seen| seen.running(2)));
    coordinator.stop(2, "enough").await;
    coordinator
        .until("the adopted one ends", |seen| seen.ended(2))
        .await;
    assert_eq!(last(&coordinator, 2).end(), wire::EndKind::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_nine_of_the_agent_nothing_starts_twice_and_nothing_is_lost() {
    let coordinator = Coordinator::start().await;
    let folder = tempfile::tempdir().unwrap();
    let spawn = || Killed {
        process: Command::new(env!("CARGO_BIN_EXE_agent-harness"))
            .args(["agent", &coordinator.url])
            .arg(folder.path())
            .spawn()
            .unwrap(),
        folder: folder.path().to_owned(),
    };
    let starts = folder.path().join("starts");
    let count = 30;
    let script = format!("echo $PLATFORM_RUN_ID >> {}; sleep 0.3", starts.display());
    let mut agent = spawn();
    coordinator
        .until("hello", |seen| seen.hellos.len() == 1)
        .await;
    coordinator
        .wish((1..=count).map(|run| assignment(run, &script)).collect())
        .await;
    for kills in 1..=4_u64 {
        // At whatever moment so many have been heard of.
        coordinator
            .until("some progress", |seen| {
                seen.reports.len() as u64 >= kills * 4
            })
            .await;
        agent.process.kill().unwrap();
        agent.process.wait().unwrap();
        let next = spawn();
        std::mem::replace(&mut agent, next).forget();
    }
    for run in 1..=count {
        coordinator.until("every end", |seen| seen.ended(run)).await;
        let report = last(&coordinator, run);
        assert_eq!(
            (report.end(), report.exit_code),
            (wire::EndKind::Exited, 0),
            "{report:?}"
        );
    }
    drop(agent);
    let text = fs::read_to_string(starts).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(
        (lines.len() as u64, text.lines().count() as u64),
        (count, count)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_launcher_is_killed_its_runs_are_lost_once_and_new_ones_start() {
    let coordinator = Coordinator::start().await;
    let node = Node::start(&coordinator);
    coordinator
        .wish(vec![assignment(1, "sleep 1000 & wait")])
        .await;
    coordinator.until("running", |seen| seen.running(1)).await;
    stop_launcher(node.folder.path());
    coordinator.until("lost", |seen| seen.ended(1)).await;
    assert_eq!(last(&coordinator, 1).end(), wire::EndKind::Lost);
    coordinator.wish(vec![assignment(2, "true")]).await;
    coordinator.until("a new one", |seen| seen.ended(2)).await;
    assert_eq!(last(&coordinator, 2).end(), wire::EndKind::Exited);
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_wait_for_the_store_on_disk_and_arrive_whole_and_once() {
    let coordinator = Coordinator::start().await;
    let mut node = Node::start(&coordinator);
    coordinator.with(|seen| seen.tracking_down = true);
    let file = b"weights";
    let name = hash(file);
    let script = format!(
        r#"d=$PLATFORM_SPOOL/$PLATFORM_RUN_ID; mkdir -p $d/files $d/w-0123456789abcdef
printf weights > $d/files/{name}
for i in $(seq 1 200); do echo "{{\"s\":$i,\"k\":\"progress\",\"done\":$i,\"total\":200}}"; done > $d/w-0123456789abcdef/00000001.ndjson
echo '{{"s":201,"k":"model","name":"m","files":[{{"path":"w","sha256":"{name}","size_bytes":7}}]}}' >> $d/w-0123456789abcdef/00000001.ndjson
printf '{{"s":202' >> $d/w-0123456789abcdef/00000001.ndjson"#
    );
    coordinator.wish(vec![assignment(1, &script)]).await;
    coordinator.until("the end", |seen| seen.ended(1)).await;
    coordinator.retire(1).await;
    let retired = node.attempt(1).join("retired");
    while !retired.exists() {
        tokio::task::yield_now().await;
    }
    // Also across a restart of the agent.
    node.stop().await;
    coordinator.with(|seen| seen.tracking_down = false);
    node.again(&coordinator);
    coordinator
        .until("drained", |seen| seen.drained == [1])
        .await;
    coordinator.with(|seen| {
        let lines = &seen.journals[&("run-1".to_owned(), "w-0123456789abcdef".to_owned())];
        assert_eq!(lines.len(), 201);
        assert_eq!(seen.blobs[&name], file);
    });
    let folder = node.attempt(1);
    while folder.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_can_never_take_is_told_of_and_everything_behind_it_is_sent() {
    let coordinator = Coordinator::start().await;
    let _node = Node::start(&coordinator);
    let good = hash(b"good");
    let damaged = "a".repeat(64);
    let script = format!(
        r#"printf 'no newline'; d=$PLATFORM_SPOOL/$PLATFORM_RUN_ID; mkdir -p $d/files $d/made $d/w-fedcba9876543210
printf good > $d/files/{good}; printf other > $d/files/{damaged}
cat > $d/made/00000001.ndjson <<END
{{"s":1,"k":"tags","tags":{{}}}}
no record
{{"s":2,"k":"artifact","path":"damaged","sha256":"{damaged}","size_bytes":5}}
{{"s":3,"k":"artifact","path":"good","sha256":"{good}","size_bytes":4}}
{{"s":5,"k":"tags","tags":{{}}}}
END
touch $d/made/closed; mv $d/made $d/w-0123456789abcdef
echo '{{"s":1,"k":"tags","tags":{{}}}}' > $d/w-fedcba9876543210/00000001.ndjson"#
    );
    coordinator.wish(vec![assignment(1, &script)]).await;
    coordinator
        .until("drained", |seen| seen.drained == [1])
        .await;
    coordinator.with(|seen| {
        let kinds = |writer: &str| -> Vec<(u64, String)> {
            let lines = &seen.journals[&("run-1".to_owned(), writer.to_owned())];
            let kind = |line: &serde_json::Value| line["k"].as_str().unwrap().to_owned();
            lines
                .iter()
                .map(|line| (line["s"].as_u64().unwrap(), kind(line)))
                .collect()
        };
        let expected = [
            (1, "tags"),
            (2, "lost"),
            (3, "artifact"),
            (4, "lost"),
            (5, "tags"),
        ];
        let expected = expected.map(|(sequence, kind)| (sequence, kind.to_owned()));
        assert_eq!(kinds("w-0123456789abcdef"), expected);
        assert_eq!(kinds("w-fedcba9876543210").len(), 1);
        assert_eq!(seen.blobs[&good], b"good");
        // The run's own log says so, once, with the file and the line, on a line of its own.
        let log = &seen.journals[&("run-1".to_owned(), "agent-1-0".to_owned())][0]["sha256"];
        let log = String::from_utf8_lossy(&seen.blobs[log.as_str().unwrap()]).into_owned();
        assert_eq!(
            log,
            "no newline\n[platform: line 2 of run-1/w-0123456789abcdef/00000001.ndjson was not \
             recorded: it has no sequence: \"no record\" (and 2 more)]\n"
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_while_it_is_stored_is_stored_as_it_is_then() {
    let coordinator = Coordinator::start().await;
    let node = Node::start(&coordinator);
    let log = node.attempt(1).join("log");
    coordinator.with(|seen| seen.grows = Some(log));
    // More than fits on the way: its end is read after it has grown.
    let script = "head -c 8388608 /dev/zero";
    coordinator.wish(vec![assignment(1, script)]).await;
    coordinator
        .until("drained", |seen| seen.drained == [1])
        .await;
    coordinator.with(|seen| {
        assert!(seen.grows.is_none(), "it did not grow");
        let lines = &seen.journals[&("run-1".to_owned(), "agent-1-0".to_owned())];
        assert_eq!((lines.len(), &lines[0]["k"]), (1, &"artifact".into()));
        let log = &seen.blobs[lines[0]["sha256"].as_str().unwrap()];
        assert_eq!(log.len() as u64, lines[0]["size_bytes"].as_u64().unwrap());
        assert!(log.ends_with(b"\0the end\n"), "{} bytes", log.len());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_short_runs_pass_through_and_the_rate_is_told() {
    let coordinator = Coordinator::start().await;
    let _node = Node::start(&coordinator);
    coordinator
        .until("hello", |seen| !seen.hellos.is_empty())
        .await;
    coordinator.wish(vec![assignment(9_999, "true")]).await;
    coordinator.until("warm", |seen| seen.ended(9_999)).await;
    let count = 500;
    let begun = std::time::Instant::now();
    let wishes = (1..=count).map(|run| {
        let mut wish = assignment(run, "");
        wish.workload.as_mut().unwrap().command = vec!["/bin/true".into()];
        wish
    });
    coordinator.wish(wishes.collect()).await;
    coordinator
        .until("all ends", |seen| (1..=count).all(|run| seen.ended(run)))
        .await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let mut waits = Vec::new();
    for run in 10_000..10_050 {
        let begun = std::time::Instant::now();
        coordinator.wish(vec![assignment(run, "true")]).await;
        coordinator
            .until("running", |seen| {
                seen.reports.contains_key(&run)
                    && seen
                        .last(run)
                        .is_some_and(|report| report.state() >= wire::MemberState::Running)
            })
            .await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    println!(
        "{{\"agent_runs_per_second\":{rate:.0},\"wish_to_running_p50_ms\":{:.2},\"wish_to_running_max_ms\":{:.2}}}",
        waits[25].as_secs_f64() * 1e3,
        waits[49].as_secs_f64() * 1e3,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_in_the_same_folder_is_refused() {
    let coordinator = Coordinator::start().await;
    let node = Node::start(&coordinator);
    coordinator
        .until("hello", |seen| !seen.hellos.is_empty())
        .await;
    let config =
        AgentConfig::new(&coordinator.url, "secret", "node-b", node.folder.path()).unwrap();
    let refused = tokio::time::timeout(
        Duration::from_secs(10),
        agent::run(config, CancellationToken::new()),
    );
    let refused = refused.await.unwrap().unwrap_err();
    assert!(
        refused.to_string().contains("another agent uses"),
        "{refused}"
    );
}
