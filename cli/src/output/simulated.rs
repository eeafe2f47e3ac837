//! A replayed history for people: each tenant's period as it happened and as it would have been.

use super::{Paint, amounts, tables};
use crate::commands::simulate::history::Report;
use coordinator_simulation::history::{Calibration, Figures, TenantComparison};

/// The whole report.
pub fn comparison(report: &Report, paint: Paint) -> String {
    let whole = tables::pairs(&[
        (
            "period",
            format!(
                "{} to {}, {} GPUs",
                amounts::moment(report.since_us),
                amounts::moment(report.until_us),
                amounts::milli(report.capacity_milli)
            ),
        ),
        ("estimates", estimates(&report.calibration)),
    ]);
    let tenants = report.comparison.tenants.iter().flat_map(|tenant| {
        let name = tenant.tenant.clone();
        rows(tenant, name, &report.currency)
    });
    let total = rows(&report.comparison.total, "all".to_owned(), &report.currency);
    let table = tables::table(
        &[
            "TENANT",
            "QUOTAS",
            "RUNS",
            "REFUSED",
            "UNSTARTED",
            "WAITS",
            "P95",
            "PREEMPTED",
            "GPU HOURS",
            "USED",
            "COST",
        ],
        tenants.chain(total).collect(),
        paint,
    );
    let mut text = format!("{}\n\n{table}", whole.trim_end());
    if report.calibration.scored().0 > 0 {
        text.push('\n');
        text.push_str(&leads(&report.calibration, paint));
    }
    for (why, runs) in &report.refusals {
        text.push_str(&format!("\nrefused {runs}: {why}\n"));
    }
    text
}

fn rows(tenant: &TenantComparison, name: String, currency: &str) -> Vec<Vec<String>> {
    let told = [
        ("happened", Some(&tenant.happened)),
        ("today's", Some(&tenant.replayed)),
        ("proposed", tenant.proposed.as_ref()),
    ];
    told.into_iter()
        .filter_map(|(what, figures)| Some((what, figures?)))
        .map(|(what, figures)| row(&name, what, figures, currency))
        .collect()
}

fn row(name: &str, what: &str, figures: &Figures, currency: &str) -> Vec<String> {
    vec![
        name.to_owned(),
        what.to_owned(),
        figures.runs.to_string(),
        figures.refused.to_string(),
        figures.not_started.to_string(),
        amounts::duration(figures.wait_mean_us),
        amounts::duration(figures.wait_p95_us),
        figures.preemptions.to_string(),
        amounts::gpu_hours(figures.gpu_us),
        format!("{:.1} %", figures.utilisation * 100.0),
        amounts::money(figures.cost_micro, currency),
    ]
}

fn estimates(calibration: &Calibration) -> String {
    let (scored, within) = calibration.scored();
    if scored == 0 {
        return format!(
            "none to score: {} runs waited of whose like too little was known",
            calibration.unknown
        );
    }
    format!(
        "{within} of {scored} starts within the interval that was estimated ({} %); nothing known of {}",
        within * 100 / scored,
        calibration.unknown
    )
}

fn leads(calibration: &Calibration, paint: Paint) -> String {
    let rows = calibration
        .leads
        .iter()
        .filter(|lead| lead.estimates > 0)
        .map(|lead| {
            vec![
                lead.lead.to_owned(),
                lead.estimates.to_string(),
                format!("{} %", lead.within * 100 / lead.estimates),
                lead.earlier.to_string(),
                lead.later.to_string(),
            ]
        })
        .collect();
    tables::table(
        &["ESTIMATED AHEAD", "ESTIMATES", "WITHIN", "EARLIER", "LATER"],
        rows,
        paint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator_simulation::history::{Comparison, Lead};

    #[test]
    fn what_happened_stands_above_what_would_have() {
        let figures = |wait_s: u64, preemptions| Figures {
            runs: 12,
            refused: 0,
            not_started: 1,
            wait_mean_us: wait_s * 1_000_000,
            wait_p95_us: wait_s * 4_000_000,
            preemptions,
            gpu_us: 36 * 3_600_000_000,
            utilisation: 0.4567,
            cost_micro: 90_000_000,
        };
        let tenant = |name: &str| TenantComparison {
            tenant: name.to_owned(),
            happened: figures(300, 2),
            replayed: figures(290, 2),
            proposed: Some(figures(40, 0)),
        };
        let report = Report {
            since_us: 1_790_000_000_000_000,
            until_us: 1_792_592_000_000_000,
            currency: "EUR".to_owned(),
            capacity_milli: 16_000,
            carried_over: 3,
            comparison: Comparison {
                total: tenant(""),
                tenants: vec![tenant("nlp")],
            },
            refusals: [("a limit of 4 GPUs".to_owned(), 2)].into(),
            calibration: Calibration {
                unknown: 4,
                open: 1,
                leads: vec![Lead {
                    lead: "up to 1 h",
                    estimates: 10,
                    within: 8,
                    earlier: 1,
                    later: 1,
                }],
            },
            times_real_time: 123_456.0,
        };
        insta::assert_snapshot!(comparison(&report, Paint::default()));
    }
}
