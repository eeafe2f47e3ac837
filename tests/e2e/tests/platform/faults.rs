//! What happens when something breaks: a second instance, a taken port, a crash under a running
//! workload, Ctrl-C, a full disk, a log that is no text.
//!
//! A clock that jumps is tested where time enters, in the tests of `coordinator-core` and `agent-core`:
//! an end-to-end test would have to change the clock of the whole machine.

use platform_e2e::platform::{code, finish, signal};
use platform_e2e::{Options, Platform, eventually, skip};
use rustix::process::Signal;
use serde_json::json;
use std::io::Read;
use std::process::Stdio;

#[test]
fn a_second_instance_on_the_same_data_is_refused_and_hurts_nothing() {
    let platform = Platform::start();
    let second = platform.cli(&["up", "--listen", "127.0.0.1:0", "--devices", "1xA100-80G"]);
    assert_eq!(second.code, 1, "{second:?}");
    let data = platform.home().join("data");
    assert!(
        second.stderr.contains(&data.display().to_string()),
        "names the folder: {second:?}"
    );
    assert!(
        second.stderr.contains("hint:"),
        "says what to do: {second:?}"
    );
    platform.cli(&["whoami"]).expect(0);
}

#[test]
fn a_taken_port_and_an_address_beyond_loopback_are_refused_in_words() {
    let platform = Platform::prepare(Options::default());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = platform.cli(&["up", "--listen", &address]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains(&address) && refused.stderr.contains("--listen"),
        "{refused:?}"
    );
    let refused = platform.cli(&["up", "--listen", "0.0.0.0:0"]);
    assert!([1, 2].contains(&refused.code), "{refused:?}");
    assert!(
        refused.stderr.contains("TLS") && refused.stderr.contains("127.0.0.1:0"),
        "{refused:?}"
    );
    let refused = platform.cli(&["up", "--listen", "127.0.0.1:0", "--devices", "many"]);
    assert!([1, 2].contains(&refused.code), "{refused:?}");
    assert!(
        refused.stderr.contains("8xA100-80G"),
        "shows how it is written: {refused:?}"
    );
}

#[test]
fn a_restart_keeps_tokens_runs_policy_and_books() {
    let mut platform = Platform::start();
    let folder = platform.code("work", &[("train.py", "print('kept')\n")]);
    platform
        .cli_in(&folder, &["run", "--tag", "team=nlp", "train.py"])
        .expect(0);
    platform
        .cli(&["policy", "set", "--require-tag", "project"])
        .expect(0);
    let created = platform
        .cli(&["tokens", "create", "--user", "ada", "--json"])
        .json();
    let ada = created["secret"].as_str().unwrap().to_owned();
    let before = (
        platform.run("run-1"),
        platform.http().get("/v1/policy"),
        platform.http().get("/v1/cost?by=run")["rows"].clone(),
    );
    let status = platform.stop(Signal::TERM);
    assert_eq!(code(status), 0, "{}", platform.log());
    platform.launch();
    platform.ready();
    let after = (
        platform.run("run-1"),
        platform.http().get("/v1/policy"),
        platform.http().get("/v1/cost?by=run")["rows"].clone(),
    );
    assert_eq!(before, after);
    assert_eq!(
        platform.http().with_token(Some(&ada)).get("/v1/whoami")["user"],
        "ada"
    );
    assert_eq!(
        platform.cli(&["logs", "run-1"]).expect(0),
        "kept\n",
        "the log is stored"
    );
    let next = platform.submit(
        "next",
        &json!({"name": "n", "command": ["true"], "tags": {"team": "a", "project": "b"}}),
    );
    assert_eq!(next, "run-2", "numbers go on");
}

#[test]
fn a_run_that_lives_through_a_crash_ends_with_its_own_exit_code_and_its_whole_log() {
    let mut platform = Platform::start();
    let go = platform.folder().join("go");
    let script = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after; exit 42",
        go.display()
    );
    let id = platform.submit(
        "a",
        &json!({"name": "lives", "command": ["sh", "-c", script], "tags": {"team": "nlp"}}),
    );
    platform.wait_for(&id, &["running"]);
    let mut attached = platform
        .command(&["logs", "-f", &id])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    platform.crash_and_restart();
    let held = platform.run(&id);
    assert_eq!(held["state"], "running", "{held:#}");
    assert_eq!(held["attempts"].as_array().unwrap().len(), 1);
    std::fs::write(&go, "").unwrap();
    let ended = platform.wait_for_end(&id);
    assert_eq!(
        (
            ended["exit_code"].as_i64(),
            ended["client_exit_code"].as_i64()
        ),
        (Some(42), Some(42)),
        "{ended:#}"
    );
    assert_eq!(platform.cli(&["logs", &id]).expect(0), "before\nafter\n");
    // Whoever watched goes on watching over the crash.
    let status = attached.wait().unwrap();
    let mut text = String::new();
    attached
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!((text.as_str(), code(status)), ("before\nafter\n", 42));

    // One that ended while nobody listened.
    let script = format!("while [ -e {} ]; do sleep 0.05; done; exit 9", go.display());
    let id = platform.submit(
        "b",
        &json!({"name": "ends alone", "command": ["sh", "-c", script], "tags": {"team": "nlp"}}),
    );
    platform.wait_for(&id, &["running"]);
    platform.kill();
    std::fs::remove_file(&go).unwrap();
    let attempts = platform.home().join("data/agent/attempts");
    eventually("the launcher has recorded the end", || {
        std::fs::read_dir(&attempts)
            .ok()?
            .flatten()
            .any(|entry| entry.path().join("exit.json").exists())
            .then_some(())
    });
    platform.launch();
    platform.ready();
    let ended = platform.wait_for_end(&id);
    assert_eq!(ended["exit_code"].as_i64(), Some(9), "{ended:#}");
}

#[test]
fn ctrl_c_detaches_and_the_run_goes_on() {
    let platform = Platform::start();
    let go = platform.folder().join("go");
    let script = format!(
        "echo up; while [ ! -e {} ]; do sleep 0.05; done; exit 5",
        go.display()
    );
    let folder = platform.code("work", &[("run.sh", &script)]);
    let mut attached = platform
        .command(&["run", "--tag", "team=nlp", "run.sh"])
        .current_dir(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    attached
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    assert_eq!(&first, b"up\n");
    signal(attached.id(), Signal::INT);
    let output = attached.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(output.status), 130, "{said}");
    assert!(
        said.contains("platform logs -f run-1"),
        "the way back: {said}"
    );
    assert_eq!(platform.run("run-1")["state"], "running");
    std::fs::write(&go, "").unwrap();
    platform.cli(&["runs", "wait", "run-1"]).expect(5);
}

#[test]
fn stopping_the_platform_leaves_its_runs_and_the_next_one_adopts_them() {
    let mut platform = Platform::start();
    let go = platform.folder().join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exit 6",
        go.display()
    );
    let id = platform.submit(
        "a",
        &json!({"name": "stays", "command": ["sh", "-c", script], "tags": {"team": "nlp"}}),
    );
    platform.wait_for(&id, &["running"]);
    assert_eq!(code(platform.stop(Signal::INT)), 0, "{}", platform.log());
    platform.launch();
    platform.ready();
    assert_eq!(platform.run(&id)["state"], "running");
    std::fs::write(&go, "").unwrap();
    assert_eq!(platform.wait_for_end(&id)["exit_code"].as_i64(), Some(6));
}

#[test]
fn a_log_without_a_newline_and_with_escapes_is_kept_whole_and_shown_harmless() {
    let platform = Platform::start();
    let folder = platform.code(
        "work",
        &[("log.sh", "printf 'a\\033]0;title\\007b\\033[2Jc\\r50%%\\r100%%'; printf '\\377\\376 no newline'\n")],
    );
    let shown = finish(
        platform
            .command(&["run", "--tag", "team=nlp", "log.sh"])
            .current_dir(&folder),
    );
    let text = shown.expect(0);
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{7}'),
        "{text:?}"
    );
    assert!(
        text.contains("abc") && text.contains("100%") && text.contains("no newline"),
        "{text:?}"
    );
    let raw = platform
        .http()
        .send("GET", "/v1/runs/run-1/logs", None, b"")
        .unwrap();
    assert_eq!(
        raw.body,
        b"a\x1b]0;title\x07b\x1b[2Jc\r50%\r100%\xff\xfe no newline"
    );
    let shown = platform.cli(&["logs", "run-1"]);
    assert!(!shown.expect(0).contains('\u{1b}'), "{shown:?}");
    assert!(
        platform
            .cli(&["logs", "--raw", "run-1"])
            .expect(0)
            .contains('\u{1b}')
    );
    // Ten MiB without one newline.
    let big = platform.cli(&[
        "run",
        "--quiet",
        "--tag",
        "team=nlp",
        "--",
        "sh",
        "-c",
        "head -c 10485760 /dev/zero | tr '\\0' x",
    ]);
    let text = big.expect(0);
    assert_eq!(text.bytes().filter(|byte| *byte == b'x').count(), 10 << 20);
}

#[test]
fn a_full_disk_is_said_clearly_and_nothing_acknowledged_is_lost() {
    const NAME: &str = "e2e a_full_disk (a small file system to fill)";
    if !rustix::process::geteuid().is_root() {
        return skip(NAME, "only root can mount one");
    }
    let mut options = Options::default();
    let small = tempfile::Builder::new()
        .prefix("platform-e2e-disk-")
        .tempdir()
        .unwrap();
    let mounted = finish(
        std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"])
            .arg(small.path()),
    );
    if mounted.code != 0 {
        return skip(NAME, "mount is not permitted here");
    }
    let _unmount = Unmount(small.path().to_owned());
    options.data = Some(small.path().join("data"));
    let mut platform = Platform::start_with(options);
    let spec =
        |name: &str| json!({"spec": {"name": name, "command": ["true"], "tags": {"team": "nlp"}}});
    let before = platform.submit("before", &spec("before")["spec"]);
    platform.wait_for_end(&before);

    let filler = small.path().join("filler");
    let filled = finish(
        std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("head -c 200m /dev/zero > {}", filler.display())),
    );
    assert_ne!(filled.code, 0, "the disk is full");
    let refused = eventually("submits are refused", || {
        let reply = platform
            .http()
            .change("POST", "/v1/runs", "during", &spec("during"))
            .ok()?;
        (reply.status == 503).then_some(reply)
    });
    let error = refused.json();
    assert_eq!(error["code"], "unavailable");
    assert!(
        error["message"].as_str().unwrap().contains("disk full"),
        "{error}"
    );
    let cli = platform.cli(&["run", "--tag", "team=nlp", "--", "true"]);
    assert_ne!(cli.code, 0, "{cli:?}");
    assert!(
        cli.stderr.to_lowercase().contains("disk") || cli.stderr.contains("space"),
        "{cli:?}"
    );
    assert_eq!(platform.run(&before)["state"], "succeeded", "reads go on");

    std::fs::remove_file(&filler).unwrap();
    let after = eventually("submits are taken again", || {
        let reply = platform
            .http()
            .change("POST", "/v1/runs", "after", &spec("after"))
            .ok()?;
        (reply.status == 200).then(|| reply.json()["run"]["id"].as_str().unwrap().to_owned())
    });
    assert_eq!(platform.wait_for_end(&after)["state"], "succeeded");
    platform.crash_and_restart();
    assert_eq!(platform.run(&before)["state"], "succeeded");
    assert_eq!(platform.run(&after)["state"], "succeeded");
    drop(platform);
}

/// Unmounts whatever happens, after the processes on it have been ended.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        platform_e2e::platform::kill_all_of(&self.0);
        // Lazily: a process that was just killed may still be ending.
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}
