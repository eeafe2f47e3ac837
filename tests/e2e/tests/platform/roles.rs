//! Who may do what: anonymous gets 401 on every route but health, and each role exactly its own.

use platform_e2e::{Http, Platform};
use serde_json::{Value, json};

const NO_BLOB: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who may: the lowest role, and a body that is right as far as its form goes.
struct Route {
    method: &'static str,
    path: String,
    body: Value,
    lowest: Role,
}

#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
enum Role {
    Viewer,
    Member,
    TenantAdmin,
    PlatformAdmin,
}

fn routes(run: &str, array: &str, node: &str, policy: &Value) -> Vec<Route> {
    use Role::{Member, PlatformAdmin, Viewer};
    let spec = json!({"name": "x", "command": ["true"], "tags": {"team": "nlp"}});
    let token = json!({"user": "eve", "tenant": "default", "role": "viewer"});
    let quota = json!({"tenant": "default", "pool": "default", "gpu_milli": 4000, "dry_run": true});
    [
        ("GET", "/metrics".to_owned(), Value::Null, Viewer),
        ("GET", "/v1/whoami".to_owned(), Value::Null, Viewer),
        (
            "POST",
            "/v1/runs".to_owned(),
            json!({"spec": spec, "dry_run": true}),
            Member,
        ),
        ("GET", "/v1/runs".to_owned(), Value::Null, Viewer),
        ("GET", format!("/v1/runs/{run}"), Value::Null, Viewer),
        (
            "GET",
            format!("/v1/runs/{run}/explain"),
            Value::Null,
            Viewer,
        ),
        ("GET", format!("/v1/runs/{run}/watch"), Value::Null, Viewer),
        ("GET", format!("/v1/runs/{run}/logs"), Value::Null, Viewer),
        ("POST", format!("/v1/runs/{run}/cancel"), json!({}), Member),
        ("GET", format!("/v1/arrays/{array}"), Value::Null, Viewer),
        (
            "GET",
            format!("/v1/arrays/{array}/watch"),
            Value::Null,
            Viewer,
        ),
        (
            "POST",
            format!("/v1/arrays/{array}/cancel"),
            json!({}),
            Member,
        ),
        ("GET", "/v1/nodes".to_owned(), Value::Null, Viewer),
        ("GET", format!("/v1/nodes/{node}"), Value::Null, Viewer),
        (
            "POST",
            format!("/v1/nodes/{node}/cordon"),
            json!({"dry_run": true}),
            PlatformAdmin,
        ),
        (
            "POST",
            format!("/v1/nodes/{node}/uncordon"),
            json!({"dry_run": true}),
            PlatformAdmin,
        ),
        (
            "POST",
            format!("/v1/nodes/{node}/drain"),
            json!({"dry_run": true}),
            PlatformAdmin,
        ),
        ("GET", "/v1/tenants".to_owned(), Value::Null, Viewer),
        (
            "POST",
            "/v1/tenants".to_owned(),
            json!({"name": "new"}),
            PlatformAdmin,
        ),
        (
            "PUT",
            "/v1/tenants/default".to_owned(),
            json!({"weight": 2, "dry_run": true}),
            PlatformAdmin,
        ),
        ("GET", "/v1/quotas".to_owned(), Value::Null, Viewer),
        ("PUT", "/v1/quotas".to_owned(), quota, PlatformAdmin),
        ("GET", "/v1/pools".to_owned(), Value::Null, Viewer),
        (
            "PUT",
            "/v1/pools/silver".to_owned(),
            json!({"description": "x"}),
            PlatformAdmin,
        ),
        ("GET", "/v1/policy".to_owned(), Value::Null, Viewer),
        (
            "PUT",
            "/v1/policy".to_owned(),
            policy.clone(),
            PlatformAdmin,
        ),
        ("GET", "/v1/cost".to_owned(), Value::Null, Viewer),
        ("GET", "/v1/decisions".to_owned(), Value::Null, Viewer),
        (
            "GET",
            format!("/v1/runs/{run}/decisions"),
            Value::Null,
            Viewer,
        ),
        (
            "GET",
            "/v1/decisions/1/replay".to_owned(),
            Value::Null,
            PlatformAdmin,
        ),
        (
            "GET",
            "/v1/history?since_us=0&until_us=1".to_owned(),
            Value::Null,
            PlatformAdmin,
        ),
        (
            "GET",
            "/v1/history/frame?since_us=0".to_owned(),
            Value::Null,
            PlatformAdmin,
        ),
        ("GET", "/v1/tokens".to_owned(), Value::Null, Viewer),
        ("POST", "/v1/tokens".to_owned(), token, PlatformAdmin),
        (
            "DELETE",
            "/v1/tokens/nobody".to_owned(),
            Value::Null,
            Viewer,
        ),
        ("HEAD", format!("/v1/blobs/{NO_BLOB}"), Value::Null, Viewer),
        ("GET", format!("/v1/blobs/{NO_BLOB}"), Value::Null, Viewer),
        ("PUT", format!("/v1/blobs/{NO_BLOB}"), Value::Null, Member),
        (
            "POST",
            "/v1/tracking/local-00000000000000000000000000/journal?writer=w-0000000000000000"
                .to_owned(),
            Value::Null,
            Member,
        ),
        ("GET", "/v1/tracking".to_owned(), Value::Null, Viewer),
        ("GET", format!("/v1/tracking/{run}"), Value::Null, Viewer),
        (
            "GET",
            format!("/v1/tracking/{run}/metrics?key=loss"),
            Value::Null,
            Viewer,
        ),
        ("GET", "/v1/models".to_owned(), Value::Null, Viewer),
        ("GET", "/v1/models/none".to_owned(), Value::Null, Viewer),
    ]
    .into_iter()
    .map(|(method, path, body, lowest)| Route {
        method,
        path,
        body,
        lowest,
    })
    .collect()
}

fn status(http: &Http, route: &Route, key: &str) -> u16 {
    let body = if route.body.is_null() {
        Vec::new()
    } else {
        serde_json::to_vec(&route.body).unwrap()
    };
    let key = (route.method != "GET" && route.method != "HEAD").then_some(key);
    http.send(route.method, &route.path, key, &body)
        .unwrap_or_else(|error| panic!("{} {}: {error}", route.method, route.path))
        .status
}

#[test]
fn every_route_knows_its_callers() {
    let platform = Platform::start();
    let spec = json!({"name": "one", "command": ["true"], "tags": {"team": "nlp"}});
    let run = platform.submit("one", &spec);
    platform.wait_for_end(&run);
    let http = platform.http();
    let body = json!({"spec": spec, "array": "0"});
    let array = http
        .change("POST", "/v1/runs", "an array", &body)
        .unwrap()
        .expect_ok();
    let array = array["array"]["id"].as_str().unwrap().to_owned();
    // A watch of it ends when it does.
    for run in http.get(&format!("/v1/runs?array={array}"))["runs"]
        .as_array()
        .unwrap()
    {
        platform.wait_for_end(run["id"].as_str().unwrap());
    }
    let node = http.get("/v1/nodes")["nodes"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let policy = http.get("/v1/policy");
    let routes = routes(&run, &array, &node, &policy);

    let health = http
        .with_token(None)
        .send("GET", "/healthz", None, b"")
        .unwrap();
    assert_eq!((health.status, health.text().as_str()), (200, "ok"));
    for (who, token) in [
        ("nobody", None),
        ("a liar", Some("not-a-token")),
        ("empty", Some("")),
    ] {
        let caller = http.with_token(token);
        for route in &routes {
            assert_eq!(
                status(&caller, route, who),
                401,
                "{who}: {} {}",
                route.method,
                route.path
            );
        }
        let unknown = caller.send("GET", "/v1/unknown", None, b"").unwrap();
        assert_eq!(unknown.status, 401, "not even which routes there are");
    }

    let token = |user: &str, role: &str| {
        let created = platform
            .cli(&["tokens", "create", "--user", user, "--role", role, "--json"])
            .json();
        created["secret"].as_str().unwrap().to_owned()
    };
    let agent = http.with_token(Some(&token("a-node", "agent")));
    for route in &routes {
        assert_eq!(
            status(&agent, route, "agent"),
            403,
            "agent: {} {}",
            route.method,
            route.path
        );
    }
    for (name, role) in [
        ("viewer", Role::Viewer),
        ("member", Role::Member),
        ("tenant-admin", Role::TenantAdmin),
        ("platform-admin", Role::PlatformAdmin),
    ] {
        let caller = http.with_token(Some(&token(&format!("a-{name}"), name)));
        for route in &routes {
            let status = status(&caller, route, &format!("{name}-{}", route.path));
            // Another user's run: a member may not stop it, and may not be told more than that.
            let others_run = route.path.ends_with("/cancel") && role == Role::Member;
            let allowed = role >= route.lowest && !others_run;
            assert_eq!(
                status != 403,
                allowed,
                "{name}: {} {} answered {status}",
                route.method,
                route.path
            );
            assert_ne!(status, 401, "{name}: {} {}", route.method, route.path);
            assert!(
                status < 500,
                "{name}: {} {} answered {status}",
                route.method,
                route.path
            );
        }
    }
}

#[test]
fn tenants_do_not_see_each_other_and_a_revoked_token_ends_at_once() {
    let platform = Platform::start();
    for tenant in ["blue", "red"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    let token = |user: &str, tenant: &str| {
        let created = platform
            .cli(&[
                "tokens", "create", "--user", user, "--tenant", tenant, "--json",
            ])
            .json();
        (
            created["secret"].as_str().unwrap().to_owned(),
            created["token"]["id"].as_str().unwrap().to_owned(),
        )
    };
    let (blue, blue_id) = token("ada", "blue");
    let (red, _) = token("bob", "red");
    let http = platform.http();
    let blue = http.with_token(Some(&blue));
    let red = http.with_token(Some(&red));
    let spec = json!({"name": "secret", "command": ["true"], "tags": {"team": "nlp"}});
    let submitted = blue
        .change("POST", "/v1/runs", "k", &json!({ "spec": spec }))
        .unwrap()
        .expect_ok();
    let id = submitted["run"]["id"].as_str().unwrap().to_owned();
    assert_eq!(submitted["run"]["tenant"], "blue");
    platform.wait_for_end(&id);
    assert_eq!(
        red.send("GET", &format!("/v1/runs/{id}"), None, b"")
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        red.send("GET", &format!("/v1/runs/{id}/logs"), None, b"")
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        red.send("GET", &format!("/v1/tracking/{id}"), None, b"")
            .unwrap()
            .status,
        404
    );
    assert_eq!(red.get("/v1/runs")["runs"], json!([]));
    assert_eq!(red.get("/v1/cost")["rows"], json!([]));
    assert_eq!(blue.get("/v1/cost")["rows"][0]["runs"], 1);
    // Charging another tenant is for platform administrators.
    let theirs = json!({"name": "x", "command": ["true"], "tags": {"team": "a"}, "tenant": "blue"});
    assert_eq!(
        red.change("POST", "/v1/runs", "r", &json!({ "spec": theirs }))
            .unwrap()
            .status,
        403
    );

    platform.cli(&["tokens", "revoke", &blue_id]).expect(0);
    assert_eq!(
        blue.send("GET", "/v1/whoami", None, b"").unwrap().status,
        401
    );
}

#[test]
fn a_run_is_recorded_by_its_node_its_owner_and_a_tenant_admin_and_by_nobody_else() {
    let platform = Platform::start();
    let http = platform.http();
    let caller = |user: &str, role: &str| {
        let created = platform
            .cli(&["tokens", "create", "--user", user, "--role", role, "--json"])
            .json();
        http.with_token(Some(created["secret"].as_str().unwrap()))
    };
    let owner = caller("ada", "member");
    let colleague = caller("bob", "member");
    let lead = caller("eve", "tenant-admin");
    let spec = json!({"name": "hers", "command": ["echo", "x"], "tags": {"team": "nlp"}});
    let submitted = owner
        .change("POST", "/v1/runs", "k", &json!({ "spec": spec }))
        .unwrap()
        .expect_ok();
    let run = submitted["run"]["id"].as_str().unwrap().to_owned();
    platform.wait_for_end(&run);
    let append = |caller: &Http, writer: &str, key: &str| {
        let path = format!("/v1/tracking/{run}/journal?writer={writer}");
        let line = format!("{{\"s\":1,\"k\":\"tags\",\"tags\":{{\"by\":\"{key}\"}}}}\n");
        let answer = caller
            .send("POST", &path, Some(key), line.as_bytes())
            .unwrap();
        (answer.status, answer.text())
    };
    let (status, text) = append(&colleague, "w-0000000000000001", "bob");
    assert_eq!(status, 403, "{text}");
    assert!(
        text.contains("is ada's") && text.contains("tenant-admin"),
        "{text}"
    );
    assert_eq!(append(&owner, "w-0000000000000002", "ada").0, 200);
    assert_eq!(append(&lead, "w-0000000000000003", "eve").0, 200);
    // What the node recorded itself stays the node's, also from the run's owner and an administrator.
    for (who, caller) in [("ada", &owner), ("eve", &lead), ("admin", &http)] {
        let (status, text) = append(caller, "agent-1-0", &format!("{who}-agent"));
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("is an agent's"), "{text}");
    }
    assert_eq!(append(&owner, "anything", "ada-name").0, 400);
    let tracked = owner.get(&format!("/v1/tracking/{run}"));
    assert_eq!(tracked["tags"]["by"], "eve", "{tracked}");
    assert_eq!(
        tracked["artifacts"][0]["path"],
        "logs/attempt-1-member-0.log"
    );
}

#[test]
fn a_models_name_belongs_to_the_tenant_that_registered_it_first() {
    let platform = Platform::start();
    let http = platform.http();
    let caller = |user: &str, tenant: &str| {
        platform.cli(&["tenants", "create", tenant]).expect(0);
        let created = platform
            .cli(&[
                "tokens", "create", "--user", user, "--tenant", tenant, "--json",
            ])
            .json();
        http.with_token(Some(created["secret"].as_str().unwrap()))
    };
    let blue = caller("ada", "blue");
    let red = caller("bob", "red");
    let register = |caller: &Http, run: u64, name: &str| {
        let path = format!("/v1/tracking/local-{run:026}/journal?writer=w-0000000000000001");
        let line = format!(
            "{{\"s\":1,\"k\":\"model\",\"name\":\"{name}\",\"framework\":\"sklearn\",\"manifest\":{{}},\"files\":[]}}\n"
        );
        let key = format!("{run}-{name}");
        let answer = caller
            .send("POST", &path, Some(&key), line.as_bytes())
            .unwrap();
        let answer: Value = serde_json::from_str(&answer.text()).unwrap();
        answer["results"][0].clone()
    };
    assert_eq!(register(&blue, 1, "churn")["version"], 1);
    let refused = register(&red, 2, "churn");
    let why = refused["error"].as_str().unwrap();
    assert!(
        why.contains("belongs to tenant blue") && why.contains("another name"),
        "{why}"
    );
    assert_eq!(
        register(&blue, 3, "churn")["version"],
        2,
        "no number is lost"
    );
    assert_eq!(register(&red, 4, "churn-red")["version"], 1);
    // Names are read by everybody: what is deployed is found by them.
    let model = red.get("/v1/models/churn");
    assert_eq!(model["tenant"], "blue");
    assert_eq!(model["versions"].as_array().unwrap().len(), 2);
}

#[test]
fn a_wrong_token_says_what_to_do_and_exits_with_three() {
    let platform = Platform::start();
    let wrong = platform.cli(&["--token", "wrong", "ps"]);
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert!(wrong.stderr.contains("platform login"), "{wrong:?}");
    let error = platform.cli(&["--token", "wrong", "--json", "ps"]).error(3);
    assert_eq!(error["code"], "unauthenticated");
    let file = platform.home().join("client.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the token is for its user alone");
    // `--url` alone does not carry the token of the file to a stranger.
    let stranger = platform.cli(&["--url", "http://127.0.0.1:9", "ps"]);
    assert_eq!(stranger.code, 3, "{stranger:?}");
}
