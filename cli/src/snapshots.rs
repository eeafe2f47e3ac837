//! Whole outputs, held by snapshots: the help of every command, tables, plan and summary, from fixed
//! values and a fixed clock; and the reference page, kept equal to the binary's own help.

use crate::commands::completion;
use crate::output::plan::{self, Upload};
use crate::output::{Paint, views};
use platform_proto::http::*;
use values::*;

pub mod values;

const COLOUR: Paint = Paint {
    on: true,
    columns: None,
};
const NARROW: Paint = Paint {
    on: false,
    columns: Some(80),
};
const PLAIN: Paint = Paint {
    on: false,
    columns: None,
};

/// Times are shown in the reader's own zone; a snapshot must not depend on where it is made.
fn settled(text: String) -> String {
    let mut parts = text.split("2026-11-");
    let mut settled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        settled.push_str("[moment]");
        settled.push_str(&part["23 10:00:00".len()..]);
    }
    settled
}

#[test]
fn help_of_every_command() {
    for (path, help) in completion::helps() {
        insta::assert_snapshot!(format!("help {path}").replace(' ', "_"), help);
    }
}

#[test]
fn the_reference_page_is_the_binarys_own_help() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/cli.md");
    let written = std::fs::read_to_string(page).unwrap_or_default();
    assert!(
        written == completion::reference(),
        "docs/reference/cli.md is old; run: platform reference > docs/reference/cli.md"
    );
}

#[test]
fn tables_of_runs() {
    let list = RunList {
        runs: vec![waiting(), run()],
        arrays: Vec::new(),
        next: Some("run-17".to_owned()),
    };
    insta::assert_snapshot!("runs_list", views::runs(&list, NOW_US, PLAIN));
    insta::assert_snapshot!(
        "runs_list_empty",
        views::runs(
            &RunList {
                runs: Vec::new(),
                arrays: Vec::new(),
                next: None
            },
            NOW_US,
            PLAIN
        )
    );
    insta::assert_snapshot!(
        "runs_list_colour",
        views::runs(&list, NOW_US, COLOUR).replace('\x1b', "ESC")
    );
    let narrow = views::runs(&list, NOW_US, NARROW);
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 80),
        "{narrow}"
    );
    insta::assert_snapshot!("runs_list_in_80_columns", narrow);
    insta::assert_snapshot!(
        "runs_show",
        settled(views::run(Some(&run()), Some(&tracked()), NOW_US, PLAIN))
    );
    insta::assert_snapshot!(
        "runs_show_waiting",
        settled(views::run(Some(&waiting()), None, NOW_US, PLAIN))
    );
    let failed = TrackedRun {
        error: Some("Traceback:\n  line 1\nValueError: x\x1b[2J".to_owned()),
        status: "failed".to_owned(),
        ..tracked()
    };
    insta::assert_snapshot!(
        "runs_show_tracked_elsewhere",
        settled(views::run(None, Some(&failed), NOW_US, PLAIN))
    );
    insta::assert_snapshot!(
        "runs_list_tracked",
        views::tracked_list(
            &TrackedList {
                runs: vec![tracked()]
            },
            NOW_US,
            PLAIN
        )
    );
    insta::assert_snapshot!(
        "runs_compare",
        views::comparison(
            &[(Some(run()), Some(tracked())), (Some(waiting()), None)],
            NOW_US,
            PLAIN
        )
    );
    let explanation = Explanation {
        run: "run-18".to_owned(),
        state: "queued".to_owned(),
        tier: "waiting-for-capacity".to_owned(),
        summary: "no node has 2 free A100-80G".to_owned(),
        reasons: vec!["3 of 4 nodes: model mismatch".to_owned()],
        queue_ahead: 2,
        outlook: Some(outlook()),
        hint: Some("see who holds them: platform runs list --state running".to_owned()),
    };
    insta::assert_snapshot!(
        "runs_explain",
        settled(views::explanation(&explanation, NOW_US, PLAIN))
    );
    let unknown = Explanation {
        outlook: Some(OutlookView::default()),
        ..explanation
    };
    insta::assert_snapshot!(
        "runs_explain_unknown",
        views::explanation(&unknown, NOW_US, PLAIN)
    );
}

#[test]
fn tables_of_the_platform() {
    insta::assert_snapshot!(
        "nodes_list",
        views::nodes(
            &NodeList {
                nodes: vec![node()]
            },
            PLAIN
        )
    );
    insta::assert_snapshot!("nodes_show", views::node(&node(), PLAIN));
    let change = NodeChange {
        node: node(),
        affected_runs: vec!["run-17".to_owned()],
        dry_run: true,
    };
    insta::assert_snapshot!("nodes_drain_dry_run", views::node_change(&change, PLAIN));
    let pool = PoolView {
        name: "default".to_owned(),
        description: "the first".to_owned(),
        order: "least-attained".to_owned(),
        age_bound_ms: Some(43_200_000),
        nodes: 1,
        devices: [("A100-80G".to_owned(), 2)].into(),
        gpu_milli: 2000,
        used_milli: 500,
        waiting: 1,
        simulated: true,
    };
    insta::assert_snapshot!("pools_list", views::pools(&[pool], PLAIN));
    let tenant = TenantView {
        name: "nlp".to_owned(),
        created_us: NOW_US - 3_600_000_000,
        parent: Some("research".to_owned()),
        weight: 2,
        live_runs: 2,
        quotas: vec![quota()],
    };
    insta::assert_snapshot!(
        "tenants_list",
        views::tenants(
            &TenantList {
                tenants: vec![tenant.clone()]
            },
            NOW_US,
            PLAIN
        )
    );
    insta::assert_snapshot!("tenants_show", settled(views::tenant(&tenant, PLAIN)));
    let without_line = QuotaView {
        tenant: "guests".to_owned(),
        gpu_milli: None,
        limit_milli: None,
        borrowed_milli: 2500,
        lent_milli: 0,
        waiting_milli: 4000,
        ..quota()
    };
    insta::assert_snapshot!(
        "quotas_list",
        views::quotas(&[quota(), without_line], PLAIN)
    );
    insta::assert_snapshot!("budgets", views::budgets(&[budget(), tag_budget()], PLAIN));
    insta::assert_snapshot!("budgets_none", views::budgets(&[], PLAIN));
    insta::assert_snapshot!("budget_show", views::budget(&budget()));
    insta::assert_snapshot!("budget_set_dry_run", views::budget(&tag_budget()));
    insta::assert_snapshot!("quotas_set_dry_run", views::preempts(&[preempted()]));
    insta::assert_snapshot!("policy_show", views::policy(&policy()));
    insta::assert_snapshot!("cost_table", settled(views::cost(&cost(), PLAIN)));
    insta::assert_snapshot!("cost_csv", views::cost_csv(&cost()));
    let whoami = Whoami {
        user: "ada".to_owned(),
        tenant: "nlp".to_owned(),
        role: "member".to_owned(),
        token: "token-3".to_owned(),
        server_version: "0.1.0".to_owned(),
        simulated: true,
        currency: "EUR".to_owned(),
    };
    insta::assert_snapshot!("whoami", views::whoami(&whoami, "http://127.0.0.1:7477"));
    let token = |id: &str, expires_us, revoked| TokenView {
        id: id.to_owned(),
        user: "ada".to_owned(),
        tenant: "nlp".to_owned(),
        role: "member".to_owned(),
        created_us: NOW_US - 3_600_000_000,
        expires_us,
        revoked,
    };
    let tokens = vec![
        token("token-3", None, false),
        token("token-2", Some(NOW_US - 1), false),
        token("token-1", None, true),
    ];
    insta::assert_snapshot!(
        "tokens_list",
        settled(views::tokens(&TokenList { tokens }, NOW_US, PLAIN))
    );
    let model = ModelView {
        name: "digits".to_owned(),
        tenant: "nlp".to_owned(),
        versions: vec![
            ModelVersionView {
                version: 2,
                ..version()
            },
            version(),
        ],
    };
    insta::assert_snapshot!("models_show", views::model(&model, NOW_US, PLAIN));
    insta::assert_snapshot!(
        "models_list",
        views::models(
            &ModelList {
                models: vec![model]
            },
            NOW_US,
            PLAIN
        )
    );
    insta::assert_snapshot!(
        "artifacts_list",
        views::artifacts(&tracked().artifacts, PLAIN)
    );
}

#[test]
fn the_plan_before_and_the_summary_after() {
    let upload = Upload {
        files: 3,
        folder_bytes: 12_345,
        packed_bytes: 4_321,
        stored: false,
    };
    insta::assert_snapshot!("plan_waiting", plan::plan(&planned(), Some(&upload), PLAIN));
    let looked_ahead = SubmitResponse {
        outlook: Some(outlook()),
        ..planned()
    };
    insta::assert_snapshot!(
        "plan_dry_run",
        settled(plan::dry_run(&looked_ahead, Some(&upload), NOW_US, PLAIN))
    );
    let now = SubmitResponse {
        starts_now: true,
        waits_because: None,
        queue_ahead: 0,
        warnings: Vec::new(),
        simulated: false,
        ..planned()
    };
    insta::assert_snapshot!(
        "plan_starts_now",
        plan::plan(
            &now,
            Some(&Upload {
                stored: true,
                ..upload
            }),
            PLAIN
        )
    );
    insta::assert_snapshot!(
        "summary_succeeded",
        plan::summary(&run(), Some(&tracked()), Some(&cost()), PLAIN)
    );
    let failed = RunView {
        state: "failed".to_owned(),
        exit_code: Some(3),
        detail: Some("exited with 3".to_owned()),
        ..run()
    };
    insta::assert_snapshot!("summary_failed", plan::summary(&failed, None, None, PLAIN));
}

#[test]
fn an_array_is_one_line_and_its_runs_say_what_sets_them_apart() {
    let list = RunList {
        runs: vec![run(), element()],
        arrays: vec![array()],
        next: None,
    };
    insta::assert_snapshot!("runs_list_with_an_array", views::runs(&list, NOW_US, PLAIN));
    insta::assert_snapshot!("array", settled(views::array(&array(), PLAIN)));
    insta::assert_snapshot!(
        "run_of_an_array",
        settled(views::run(Some(&element()), None, NOW_US, PLAIN))
    );
    let sets = (0..3).map(|depth| [("depth".to_owned(), serde_json::json!(depth))].into());
    let swept = SubmitResponse {
        elements: Some(ElementCount {
            size: 100,
            most_alive: Some(8),
            first_parameters: sets.collect(),
        }),
        ..planned()
    };
    insta::assert_snapshot!("plan_of_a_sweep", plan::plan(&swept, None, PLAIN));
}
