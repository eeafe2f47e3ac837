//! The schedule, as CSV: one row for each spell of a run on its nodes.

use super::seconds::print_us;
use super::{Cluster, Outcome, Trace};
use std::io::{self, Write};

/// Writes `job_id,segment,start,end,nodes`, runs in the order of the trace.
///
/// # Errors
///
/// Those of the writer.
pub fn write_schedule(
    writer: impl Write,
    trace: &Trace,
    cluster: &Cluster,
    outcome: &Outcome,
) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(writer);
    table.write_record(["job_id", "segment", "start", "end", "nodes"])?;
    for (run, replayed) in trace.runs.iter().zip(&outcome.runs) {
        for (number, segment) in replayed.segments.iter().enumerate() {
            let nodes: Vec<String> = segment
                .nodes
                .iter()
                .map(|(node, gpus)| format!("{}:{gpus}", cluster.nodes[*node as usize].name))
                .collect();
            table.write_record([
                run.name.as_str(),
                &number.to_string(),
                &print_us(segment.start_us),
                &print_us(segment.end_us),
                &nodes.join(";"),
            ])?;
        }
    }
    table.flush()
}
