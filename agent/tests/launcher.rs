//! The launcher as a real process: exactly once, exit codes and signals kept, nothing left behind.

use agent::launcher::{Answer, Event, ExitRecord, Request, Running, StartRequest, decode, encode};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Launcher {
    folder: tempfile::TempDir,
    process: Child,
}

struct Line {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Launcher {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Self::spawn(folder.path());
        Self { folder, process }
    }

    fn spawn(folder: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_agent-harness"))
            .args(["launcher", "--socket"])
            .arg(folder.join("launcher.sock"))
            .spawn()
            .unwrap()
    }

    fn connect(&self) -> (Line, Vec<Running>) {
        let socket = self.folder.path().join("launcher.sock");
        let until = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > until => panic!("{error}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut line = Line {
            stream,
            input: Vec::new(),
        };
        match line.answer() {
            Answer::Table(table) => (line, table),
            Answer::Events(events) => panic!("the table comes first: {events:?}"),
        }
    }

    fn request(&self, name: &str, script: &str) -> StartRequest {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        StartRequest {
            name: name.to_owned(),
            folder: folder.clone(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            working_folder: folder,
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            control_groups: Vec::new(),
        }
    }

    fn exit(&self, name: &str) -> ExitRecord {
        let path = self.folder.path().join(name).join("exit.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn path(&self, name: &str, file: &str) -> PathBuf {
        self.folder.path().join(name).join(file)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Line {
    fn send(&mut self, request: &Request) {
        let mut frame = Vec::new();
        encode(request, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = decode(&mut self.input).unwrap() {
                return answer;
            }
            let mut chunk = [0; 65_536];
            let read = self.stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the launcher hung up");
            self.input.extend_from_slice(&chunk[..read]);
        }
    }

    /// Events until this many have come.
    fn events(&mut self, count: usize) -> Vec<Event> {
        let mut all = Vec::new();
        while all.len() < count {
            if let Answer::Events(events) = self.answer() {
                all.extend(events);
            }
        }
        all
    }
}

fn ended(events: &[Event]) -> Option<&ExitRecord> {
    events.iter().find_map(|event| match event {
        Event::Ended { exit, .. } => Some(exit),
        _ => None,
    })
}

#[test]
fn exit_codes_signals_and_output_are_kept() {
    let launcher = Launcher::start();
    let (mut line, table) = launcher.connect();
    assert!(table.is_empty());
    line.send(&Request::Start(vec![
        launcher.request("run-1-1-0", "echo out; echo err >&2; exit 7"),
    ]));
    let events = line.events(2);
    assert_eq!(ended(&events).unwrap().code, Some(7));
    assert_eq!(launcher.exit("run-1-1-0").code, Some(7));
    let log = fs::read_to_string(launcher.path("run-1-1-0", "log")).unwrap();
    assert_eq!(log, "out\nerr\n");
    line.send(&Request::Start(vec![
        launcher.request("run-2-1-0", "kill -TERM $$; sleep 60"),
    ]));
    assert_eq!(ended(&line.events(2)).unwrap().signal, Some(15));
    assert_eq!(launcher.exit("run-2-1-0").signal, Some(15));
}

#[test]
fn the_same_name_twice_starts_once_also_after_it_has_ended() {
    let launcher = Launcher::start();
    let (mut line, _) = launcher.connect();
    let request = launcher.request("run-1-1-0", "echo started; read line < gate");
    assert!(
        Command::new("mkfifo")
            .arg(launcher.path("run-1-1-0", "gate"))
            .status()
            .unwrap()
            .success()
    );
    line.send(&Request::Start(vec![request.clone(), request.clone()]));
    let events = line.events(2);
    assert!(
        matches!(&events[..], [Event::Started(one), Event::Started(two)] if one.process == two.process)
    );
    fs::write(launcher.path("run-1-1-0", "gate"), "go\n").unwrap();
    assert_eq!(ended(&line.events(1)).unwrap().code, Some(0));
    line.send(&Request::Start(vec![request]));
    assert_eq!(ended(&line.events(1)).unwrap().code, Some(0));
    let log = fs::read_to_string(launcher.path("run-1-1-0", "log")).unwrap();
    assert_eq!(log, "started\n");
}

#[test]
fn a_workload_outlives_the_agents_connection_and_is_found_in_the_table() {
    let launcher = Launcher::start();
    let (mut line, _) = launcher.connect();
    line.send(&Request::Start(vec![
        launcher.request("run-1-1-0", "sleep 60"),
    ]));
    line.events(1);
    drop(line);
    let (mut line, table) = launcher.connect();
    assert_eq!(table.len(), 1);
    assert_eq!(table[0].name, "run-1-1-0");
    line.send(&Request::Signal {
        name: "run-1-1-0".into(),
        signal: 9,
    });
    assert_eq!(ended(&line.events(1)).unwrap().signal, Some(9));
}

#[test]
fn a_missing_command_is_the_users_fault_and_says_where_it_was_looked_for() {
    let launcher = Launcher::start();
    let (mut line, _) = launcher.connect();
    let mut request = launcher.request("run-1-1-0", "");
    request.command = vec!["no-such-command".into()];
    line.send(&Request::Start(vec![request]));
    let events = line.events(1);
    let [
        Event::Failed {
            message,
            node_fault,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(!node_fault);
    assert_eq!(
        message,
        "command not found: \"no-such-command\"; looked in PATH=/usr/bin:/bin"
    );
    assert!(launcher.exit("run-1-1-0").failed.is_some());
}

#[test]
fn children_left_in_the_group_end_with_their_leader() {
    let launcher = Launcher::start();
    let (mut line, _) = launcher.connect();
    line.send(&Request::Start(vec![
        launcher.request("run-1-1-0", "sleep 1000 & echo $!"),
    ]));
    line.events(2);
    let log = fs::read_to_string(launcher.path("run-1-1-0", "log")).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let left = Path::new("/proc").join(log.trim()).join("cmdline");
    // A zombie has an empty command line until its new parent reaps it.
    while fs::read(&left).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < until, "it still lives");
        std::thread::yield_now();
    }
}

#[test]
fn when_the_launcher_dies_its_workloads_die_and_a_second_one_knows_that_they_had_started() {
    let mut launcher = Launcher::start();
    let (mut line, _) = launcher.connect();
    let request = launcher.request("run-1-1-0", "sleep 1000");
    line.send(&Request::Start(vec![request.clone()]));
    let events = line.events(1);
    let [Event::Started(running)] = &events[..] else {
        panic!("{events:?}");
    };
    launcher.process.kill().unwrap();
    launcher.process.wait().unwrap();
    let proc = Path::new("/proc").join(running.process.to_string());
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read(proc.join("cmdline")).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < until, "it outlived the launcher");
        std::thread::yield_now();
    }
    launcher.process = Launcher::spawn(launcher.folder.path());
    let (mut line, table) = launcher.connect();
    assert!(table.is_empty());
    line.send(&Request::Start(vec![request]));
    let events = line.events(1);
    assert!(ended(&events).unwrap().lost.is_some());
}

#[test]
fn a_second_launcher_in_the_same_folder_leaves_at_once() {
    let launcher = Launcher::start();
    let (_line, _) = launcher.connect();
    let mut second = Launcher::spawn(launcher.folder.path());
    assert!(second.wait().unwrap().success());
}

#[test]
fn a_burst_of_starts_all_end_and_the_rate_is_told() {
    let launcher = Launcher::start();
    let (mut line, _) = launcher.connect();
    let count = 500;
    let starts: Vec<StartRequest> = (0..count)
        .map(|run| {
            let mut request = launcher.request(&format!("run-{run}-1-0"), "");
            request.command = vec!["/bin/true".into()];
            request
        })
        .collect();
    let begun = Instant::now();
    line.send(&Request::Start(starts));
    let events = line.events(2 * count);
    let seconds = begun.elapsed().as_secs_f64();
    let good = events
        .iter()
        .filter(|event| matches!(event, Event::Ended { exit, .. } if exit.code == Some(0)))
        .count();
    assert_eq!(good, count);
    println!(
        "{{\"launcher_starts_per_second\":{:.0}}}",
        count as f64 / seconds
    );
}
