//! Coordinator and agent as processes of their own: each dies and comes back while a run goes on.

use platform_e2e::{Http, Options, Platform, eventually};
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Child, Command, Stdio};

/// A coordinator and an agent in one home, started by hand.
struct Pair {
    home: Platform,
    coordinator: Option<Child>,
    agent: Option<Child>,
    url: Option<String>,
}

fn spawn(home: &Platform, command: &mut Command) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(home.folder().join("up.log"))
        .unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Pair {
    fn start() -> Pair {
        let mut pair = Pair {
            home: Platform::prepare(Options::default()),
            coordinator: None,
            agent: None,
            url: None,
        };
        pair.start_coordinator();
        pair.start_agent();
        pair
    }

    fn start_coordinator(&mut self) {
        let listen = self
            .url
            .as_deref()
            .map_or("127.0.0.1:0", |url| url.trim_start_matches("http://"));
        let mut command = self.home.command(&["coordinator", "--listen", listen]);
        self.coordinator = Some(spawn(&self.home, &mut command));
        eventually("the coordinator answers", || {
            self.home.find()?;
            self.http()
                .send("GET", "/v1/whoami", None, b"")
                .ok()
                .filter(|reply| reply.status == 200)
        });
        self.url = Some(self.home.url());
    }

    fn start_agent(&mut self) {
        let token = self.agent_token();
        let url = self.url.clone().unwrap();
        let mut command =
            self.home
                .command(&["agent", "--node", "node-7", "--devices", "2xA100-80G"]);
        command
            .env("PLATFORM_URL", url)
            .env("PLATFORM_TOKEN", token);
        self.agent = Some(spawn(&self.home, &mut command));
        self.connected();
    }

    fn agent_token(&self) -> String {
        let created = self
            .home
            .cli(&[
                "tokens", "create", "--user", "node-7", "--role", "agent", "--json",
            ])
            .json();
        created["secret"].as_str().unwrap().to_owned()
    }

    fn connected(&self) {
        eventually("the agent is connected", || {
            let nodes = self.http().send("GET", "/v1/nodes", None, b"").ok()?.json();
            let node = nodes["nodes"]
                .as_array()?
                .iter()
                .find(|node| node["name"] == "node-7")?
                .clone();
            (node["heard_ago_ms"].as_u64()? < 2_000).then_some(())
        });
    }

    fn http(&self) -> Http {
        self.home.http()
    }

    fn submit_waiting(&self, key: &str, exit_code: u8) -> (String, std::path::PathBuf) {
        let go = self.home.folder().join(format!("go-{key}"));
        let script = format!(
            "echo begun; while [ ! -e {} ]; do sleep 0.05; done; exit {exit_code}",
            go.display()
        );
        let spec: Value =
            json!({"name": key, "command": ["sh", "-c", script], "tags": {"team": "nlp"}});
        let id = self.home.submit(key, &spec);
        self.home.wait_for(&id, &["running"]);
        (id, go)
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        kill(&mut self.agent);
        kill(&mut self.coordinator);
    }
}

#[test]
fn an_agent_killed_under_a_run_comes_back_and_adopts_it() {
    let mut pair = Pair::start();
    let (id, go) = pair.submit_waiting("a", 11);
    kill(&mut pair.agent);
    pair.start_agent();
    assert_eq!(pair.home.run(&id)["state"], "running");
    std::fs::write(go, "").unwrap();
    let ended = pair.home.wait_for_end(&id);
    assert_eq!(ended["exit_code"].as_i64(), Some(11), "{ended:#}");
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(ended["attempts"][0]["members"][0]["node"], "node-7");
}

#[test]
fn a_coordinator_killed_under_a_run_comes_back_and_hears_of_its_end() {
    let mut pair = Pair::start();
    let (first, go_first) = pair.submit_waiting("a", 12);
    let (second, go_second) = pair.submit_waiting("b", 13);
    kill(&mut pair.coordinator);
    // One ends while no coordinator is there to hear it, one after it is back.
    std::fs::write(go_first, "").unwrap();
    pair.start_coordinator();
    pair.connected();
    let ended = pair.home.wait_for_end(&first);
    assert_eq!(ended["exit_code"].as_i64(), Some(12), "{ended:#}");
    assert_eq!(pair.home.run(&second)["state"], "running");
    std::fs::write(go_second, "").unwrap();
    let ended = pair.home.wait_for_end(&second);
    assert_eq!(ended["exit_code"].as_i64(), Some(13), "{ended:#}");
    for id in [&first, &second] {
        assert_eq!(pair.home.run(id)["attempts"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_node_is_cordoned_drained_and_used_again() {
    let pair = Pair::start();
    let (id, _go) = pair.submit_waiting("a", 0);
    let cli = |arguments: &[&str]| pair.home.cli(arguments);
    cli(&["nodes", "cordon", "node-7", "--reason", "a look"]).expect(0);
    let waits = pair.home.submit(
        "b",
        &json!({"name": "b", "command": ["true"], "tags": {"team": "nlp"}}),
    );
    let explained = cli(&["runs", "explain", &waits, "--json"]).json();
    assert_eq!(explained["tier"], "waiting-for-capacity", "{explained:#}");
    assert_eq!(pair.home.run(&id)["state"], "running", "what runs goes on");
    let dry = cli(&["nodes", "drain", "node-7", "--dry-run", "--json"]).json();
    assert_eq!(dry["affected_runs"], json!([id]));
    assert_eq!(pair.home.run(&id)["state"], "running");
    cli(&["nodes", "drain", "node-7", "--deadline", "1s", "--yes"]).expect(0);
    // Evicted, so it waits again for a node that takes it.
    eventually("the drained node is empty", || {
        let node = pair.http().get("/v1/nodes/node-7");
        (node["runs"] == json!([])).then_some(())
    });
    cli(&["nodes", "uncordon", "node-7"]).expect(0);
    assert_eq!(pair.home.wait_for_end(&waits)["state"], "succeeded");
}
