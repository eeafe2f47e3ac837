//! The runtime with a real engine and real containers. Skipped by name where no engine answers or the
//! images of `tests/images/build` are not there.

use super::*;
use crate::blobs::{BlobCache, BlobSource, FetchError};
use agent_core::{GrantedDevice, Intent, Workload};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::sync::mpsc;

const BUSYBOX: &str = "platform-test/busybox:1";
const PYTHON: &str = "platform-test/python:1";
/// Longest wait for an event: a loaded machine starts a container in seconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct NoBlobs;

impl BlobSource for NoBlobs {
    fn read<'a>(
        &'a self,
        sha256: &'a str,
        _sink: &'a mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
    ) -> BoxFuture<'a, Result<std::io::Result<()>, FetchError>> {
        Box::pin(async move { Err(FetchError::Missing(sha256.to_owned())) })
    }
}

/// A node with a folder of its own; its containers are removed with it.
struct Node {
    folder: TempDir,
    /// The agent's process, as far as a test can have one: all that the runtime does runs in here, and
    /// dies with it.
    process: Option<tokio::runtime::Runtime>,
    runtime: Arc<DockerRuntime>,
    events: mpsc::UnboundedReceiver<RuntimeEvent>,
}

type Connected = (
    tokio::runtime::Runtime,
    Arc<DockerRuntime>,
    mpsc::UnboundedReceiver<RuntimeEvent>,
);

async fn connect(folder: &Path) -> Result<Connected, LaunchFailure> {
    let (sender, events) = mpsc::unbounded_channel();
    let sdk = folder.join("sdk");
    fs::create_dir_all(sdk.join("engineersofai_platform")).unwrap();
    fs::write(sdk.join("engineersofai_platform/__init__.py"), "HERE = 1\n").unwrap();
    let blobs = BlobCache::open(folder.join("blobs"), 1 << 20, Arc::new(NoBlobs)).unwrap();
    let context = Arc::new(NodeContext {
        events: sender,
        blobs: Arc::new(blobs),
        sdk,
        node: "rig".to_owned(),
    });
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let folder = folder.to_owned();
    let connecting = process.spawn(async move { DockerRuntime::connect(context, &folder).await });
    match connecting.await.unwrap() {
        Ok(runtime) => Ok((process, runtime, events)),
        Err(failure) => {
            process.shutdown_background();
            Err(failure)
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.shutdown_background();
        }
    }
}

impl Node {
    /// A node, or a line that says why this test cannot run here.
    async fn open(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let skipped = match connect(folder.path()).await {
            Ok((process, runtime, events)) => {
                let engine = &runtime.shared.engine;
                let both = engine.has_image(BUSYBOX).await == Ok(true)
                    && engine.has_image(PYTHON).await == Ok(true);
                if both {
                    return Some(Self {
                        folder,
                        process: Some(process),
                        runtime,
                        events,
                    });
                }
                process.shutdown_background();
                "tests/images/build has not made its images".to_owned()
            }
            Err(failure) => failure.message,
        };
        // Not by a macro, or the test harness would swallow the line; on a line of its own, because the
        // harness may stand in the middle of one.
        let _ = writeln!(std::io::stderr(), "\nskipped: docker: {test} ({skipped})");
        None
    }

    /// The agent dies: whatever it was doing stops where it stands.
    async fn die(&mut self) {
        let process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.shutdown_timeout(PATIENCE))
            .await
            .unwrap();
    }

    /// What an agent finds that starts over the same folder: nothing but the disk and the engine.
    async fn restart(&mut self) {
        if self.process.is_some() {
            self.die().await;
        }
        let (process, runtime, events) = connect(self.folder.path()).await.unwrap();
        self.process = Some(process);
        self.runtime = runtime;
        self.events = events;
    }

    fn attempt(&self, run: u64, image: &str, command: &[&str]) -> Attempt {
        let key = Key {
            run,
            attempt: 1,
            member: 0,
        };
        let folder = self.folder.path().join("attempts").join(key.to_string());
        fs::create_dir_all(folder.join("spool")).unwrap();
        Attempt {
            assignment: Assignment {
                key,
                epoch: 3,
                intent: Intent::Run,
                stop_reason: String::new(),
                grace_ms: 10_000,
                workload: Workload {
                    name: "test".to_owned(),
                    command: command.iter().map(|word| (*word).to_owned()).collect(),
                    image: image.to_owned(),
                    environment: BTreeMap::from([("MINE".to_owned(), "yes".to_owned())]),
                    ..Workload::default()
                },
                devices: Vec::new(),
                member_count: 1,
                member_nodes: vec!["rig".to_owned()],
                fence: false,
                cpu_milli: 0,
                memory_mib: 0,
            },
            folder,
        }
    }

    fn shell(&self, run: u64, script: &str) -> Attempt {
        self.attempt(run, BUSYBOX, &["sh", "-c", script])
    }

    async fn prepare(&self, attempt: &Arc<Attempt>) -> Result<(), LaunchFailure> {
        let (sender, _progress) = mpsc::unbounded_channel();
        let progress = Progress::new(attempt.key(), sender);
        Arc::clone(&self.runtime)
            .prepare(Arc::clone(attempt), progress)
            .await
    }

    async fn start(&self, attempt: Attempt) -> Arc<Attempt> {
        let attempt = Arc::new(attempt);
        self.prepare(&attempt).await.unwrap();
        self.runtime.start(Arc::clone(&attempt));
        attempt
    }

    async fn next(&mut self) -> Observation {
        let event = tokio::time::timeout(PATIENCE, self.events.recv());
        event.await.expect("an event in time").unwrap().observation
    }

    async fn running(&mut self) {
        let seen = self.next().await;
        assert!(matches!(seen, Observation::Running { .. }), "{seen:?}");
    }

    async fn ended(&mut self) -> Exit {
        match self.next().await {
            Observation::Ended { exit, .. } => exit,
            other => panic!("not an end: {other:?}"),
        }
    }

    async fn containers(&self) -> Vec<String> {
        let shared = &self.runtime.shared;
        shared.engine.names(&shared.place).await.unwrap()
    }

    async fn close(self) {
        for name in self.containers().await {
            self.runtime.shared.engine.remove(&name).await.unwrap();
        }
    }
}

/// Waits until a file holds a text; the folder is bound into the container, so no event exists for it.
async fn until_holds(path: PathBuf, text: &str) {
    let look = async {
        while !fs::read_to_string(&path).is_ok_and(|found| found.contains(text)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look)
        .await
        .unwrap_or_else(|_| panic!("{} never held {text:?}", path.display()));
}

fn log_of(attempt: &Attempt) -> String {
    fs::read_to_string(attempt.log()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_with_the_contract_and_its_log_is_whole_at_its_end() {
    let Some(mut node) = Node::open("contract").await else {
        return;
    };
    let script = "import os, sys, engineersofai_platform as p\n\
        print(os.getcwd(), p.HERE, os.environ['MINE'], os.environ['PLATFORM_RUN_ID'])\n\
        print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['NVIDIA_VISIBLE_DEVICES'])\n\
        open(os.environ['PLATFORM_SPOOL'] + '/mark', 'w').write('spooled')\n\
        open('made', 'w').write('kept')\n\
        try: open('/platform/sdk/x', 'w')\n\
        except OSError as error: print('sdk:', error.strerror)\n\
        print(open('/proc/self/status').read().split('CapEff:')[1].split()[0])\n\
        print('to stderr', file=sys.stderr)\n\
        sys.stdout.write('no newline')\n\
        sys.stdout.flush()\n\
        sys.exit(7)\n";
    let mut attempt = node.attempt(1, PYTHON, &["python", "-c", script]);
    attempt.assignment.devices = vec![GrantedDevice {
        id: "SIM-rig-3".to_owned(),
        index: 3,
        share_milli: 1_000,
        memory_mib: 0,
        model: "T4-16G".to_owned(),
        simulated: true,
    }];
    let attempt = node.start(attempt).await;
    node.running().await;
    assert_eq!(node.ended().await, Exit::Exited { code: 7 });
    let log = log_of(&attempt);
    assert!(log.contains("/platform/work 1 yes run-1\n"), "{log}");
    assert!(log.contains("3 void\n"), "{log}");
    assert!(log.contains("sdk: Read-only file system\n"), "{log}");
    assert!(log.contains("0000000000000000\n"), "capabilities: {log}");
    assert!(
        log.contains("to stderr\n") && log.contains("no newline"),
        "{log}"
    );
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(read(attempt.spool().join("mark")), "spooled");
    assert_eq!(read(attempt.work().join("made")), "kept");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_twice_starts_once_and_answers_with_what_is_known() {
    let Some(mut node) = Node::open("start twice").await else {
        return;
    };
    let attempt = node
        .start(node.shell(1, "echo once >> count; until [ -e go ]; do sleep 0.1; done"))
        .await;
    node.runtime.start(Arc::clone(&attempt));
    node.running().await;
    node.runtime.start(Arc::clone(&attempt));
    node.running().await;
    assert_eq!(node.containers().await.len(), 1);
    assert_eq!(node.runtime.processes().len(), 1);
    fs::write(attempt.work().join("go"), "").unwrap();
    assert_eq!(node.ended().await, Exit::Exited { code: 0 });
    assert!(node.runtime.processes().is_empty());
    node.runtime.start(Arc::clone(&attempt));
    assert_eq!(node.ended().await, Exit::Exited { code: 0 });
    assert_eq!(
        fs::read_to_string(attempt.work().join("count")).unwrap(),
        "once\n"
    );
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_workload_save_and_a_kill_does_not() {
    let Some(mut node) = Node::open("stop and kill").await else {
        return;
    };
    let saving = "trap 'echo saved; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let polite = node.start(node.shell(1, saving)).await;
    node.running().await;
    until_holds(polite.log(), "ready").await;
    node.runtime.signal(polite.key(), Signal::Terminate);
    assert_eq!(node.ended().await, Exit::Exited { code: 9 });
    assert_eq!(log_of(&polite), "ready\nsaved\n");
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let deaf = node.start(node.shell(2, deaf)).await;
    node.running().await;
    until_holds(deaf.log(), "ready").await;
    node.runtime.signal(deaf.key(), Signal::Terminate);
    node.runtime.signal(deaf.key(), Signal::Kill);
    assert_eq!(node.ended().await, Exit::Signaled { signal: 9 });
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_adopts_and_no_line_is_lost_or_doubled() {
    let Some(mut node) = Node::open("adoption").await else {
        return;
    };
    let counting = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; \
        if [ $i = 500 ]; then until [ -e go ]; do sleep 0.05; done; fi; done";
    let alive = node.start(node.shell(1, counting)).await;
    node.running().await;
    let ends_meanwhile = node
        .start(node.shell(
            2,
            "echo before; until [ -e go ]; do sleep 0.05; done; echo after; exit 4",
        ))
        .await;
    node.running().await;
    let orphan = node.start(node.shell(3, "while :; do sleep 1; done")).await;
    node.running().await;
    until_holds(alive.log(), "line 500\n").await;
    until_holds(ends_meanwhile.log(), "before\n").await;

    node.die().await;
    // As if the last append had been cut short.
    for attempt in [&alive, &ends_meanwhile] {
        let held = fs::metadata(attempt.log()).unwrap().len();
        let log = fs::OpenOptions::new().write(true).open(attempt.log());
        log.unwrap().set_len(held - 3).unwrap();
    }
    fs::write(ends_meanwhile.work().join("go"), "").unwrap();
    let name = node.runtime.shared.place.name(ends_meanwhile.key());
    node.runtime.shared.engine.wait(&name).await;
    node.restart().await;
    let held = vec![Arc::clone(&alive), Arc::clone(&ends_meanwhile)];
    let seen = node.runtime.adopt(held).await.unwrap();
    assert_eq!(seen.len(), 2);
    assert!(matches!(seen[0], (key, Observation::Running { .. }) if key == alive.key()));
    assert!(
        matches!(&seen[1], (key, Observation::Ended { exit: Exit::Exited { code: 4 }, .. }) if *key == ends_meanwhile.key()),
        "{seen:?}"
    );
    assert_eq!(log_of(&ends_meanwhile), "before\nafter\n");
    let orphan_name = node.runtime.shared.place.name(orphan.key());
    assert!(!node.containers().await.contains(&orphan_name));

    fs::write(alive.work().join("go"), "").unwrap();
    assert_eq!(node.ended().await, Exit::Exited { code: 0 });
    let expected: String = (1..=2_000).map(|line| format!("line {line}\n")).collect();
    assert_eq!(log_of(&alive), expected);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_someone_removed_is_lost_and_never_started_again() {
    let Some(mut node) = Node::open("removed container").await else {
        return;
    };
    let attempt = node
        .start(node.shell(1, "echo one; while :; do sleep 0.1; done"))
        .await;
    node.running().await;
    until_holds(attempt.log(), "one").await;
    let name = node.runtime.shared.place.name(attempt.key());
    node.runtime.shared.engine.remove(&name).await.unwrap();
    assert!(matches!(node.ended().await, Exit::Lost { .. }));
    node.restart().await;
    let seen = node
        .runtime
        .adopt(vec![Arc::clone(&attempt)])
        .await
        .unwrap();
    assert!(
        matches!(
            &seen[..],
            [(
                _,
                Observation::Ended {
                    exit: Exit::Lost { .. },
                    ..
                }
            )]
        ),
        "{seen:?}"
    );
    node.runtime.start(Arc::clone(&attempt));
    assert!(matches!(node.ended().await, Exit::Lost { .. }));
    assert!(node.containers().await.is_empty());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_never_started_is_left_out_when_adopting() {
    let Some(mut node) = Node::open("never started").await else {
        return;
    };
    let attempt = Arc::new(node.shell(1, "true"));
    assert_eq!(
        node.runtime.adopt(vec![Arc::clone(&attempt)]).await,
        Ok(Vec::new())
    );
    node.prepare(&attempt).await.unwrap();
    node.runtime.start(Arc::clone(&attempt));
    node.running().await;
    assert_eq!(node.ended().await, Exit::Exited { code: 0 });
    node.runtime.forget(attempt.key());
    let gone = async {
        while !node.containers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("removed");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_past_its_memory_limit_is_told_as_out_of_memory() {
    let Some(mut node) = Node::open("out of memory").await else {
        return;
    };
    let hungry = "held = [bytearray(b'x' * (1 << 20)) for _ in range(512)]";
    let mut attempt = node.attempt(1, PYTHON, &["python", "-c", hungry]);
    attempt.assignment.memory_mib = 64;
    attempt.assignment.cpu_milli = 500;
    node.start(attempt).await;
    node.running().await;
    let exit = node.ended().await;
    assert!(
        matches!(&exit, Exit::OutOfMemory { message } if message.contains("64 MiB")),
        "{exit:?}"
    );
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_fails_the_launch_and_blames_the_spec() {
    let Some(node) = Node::open("missing image").await else {
        return;
    };
    // Loopback refuses at once, wherever this runs.
    for (image, says) in [
        ("127.0.0.1:1/team/nothing:1", "cannot be reached"),
        ("Not A Name", "is not a name"),
    ] {
        let attempt = Arc::new(node.attempt(1, image, &["true"]));
        let failure = node.prepare(&attempt).await.unwrap_err();
        assert!(!failure.node_fault, "{failure}");
        assert!(
            failure.message.contains(image) && failure.message.contains(says),
            "{failure}"
        );
    }
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_folder_must_be_within_the_package() {
    let Some(node) = Node::open("working folder").await else {
        return;
    };
    for folder in ["../up", "/etc", "absent"] {
        let mut attempt = node.shell(1, "true");
        attempt.assignment.workload.working_folder = folder.to_owned();
        let failure = node.prepare(&Arc::new(attempt)).await.unwrap_err();
        assert!(
            !failure.node_fault && failure.message.contains(folder),
            "{failure}"
        );
    }
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_comes_before_the_start_is_done_is_not_lost() {
    let Some(mut node) = Node::open("early signal").await else {
        return;
    };
    let attempt = node
        .start(node.shell(1, "while :; do sleep 0.1; done"))
        .await;
    node.runtime.signal(attempt.key(), Signal::Kill);
    node.running().await;
    assert_eq!(node.ended().await, Exit::Signaled { signal: 9 });
    node.close().await;
}
