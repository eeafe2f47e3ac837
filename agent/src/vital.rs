//! What the agent cannot live without: a loop whose panic ends the process, in one place.
//!
//! An agent that renews its lease and relays nothing, or supervises and hears nobody, looks healthy and
//! is not. It stops with its reason, so that whatever started it starts it anew; what it owes is on
//! disk, and its workloads go on in the launcher meanwhile.

use futures::FutureExt as _;
use std::panic::AssertUnwindSafe;

/// EX_SOFTWARE of sysexits.h, as the coordinator's loops use it.
const EXIT: i32 = 70;

/// The work, or the end of the process when it panics.
pub(crate) async fn vital<T>(name: &str, work: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(_) => {
            // What panicked, and where, the panic itself has said on standard error.
            tracing::error!("the agent's {name} panicked: the agent stops");
            eprintln!("error: the agent stops: its {name} panicked; its runs go on");
            std::process::exit(EXIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay;
    use std::process::Command;

    const INSIDE: &str = "AGENT_VITAL_TEST";

    #[test]
    fn a_loop_that_panics_ends_the_process_with_its_reason() {
        if std::env::var_os(INSIDE).is_some() {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let part = vital("relay", async { panic!("a defect") });
                tokio::spawn(part).await.unwrap()
            })
        }
        let ended = again("vital::tests::a_loop_that_panics_ends_the_process_with_its_reason");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(EXIT), "{said}");
        assert!(said.contains("its relay panicked"), "{said}");
    }

    #[test]
    fn a_pass_of_the_relay_that_panics_ends_the_process_too() {
        if std::env::var_os(INSIDE).is_some() {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(vital("relay", relay::panics_in_a_pass()))
        }
        let ended = again("vital::tests::a_pass_of_the_relay_that_panics_ends_the_process_too");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(EXIT), "{said}");
    }

    /// This test in a process of its own, which may end.
    fn again(test: &str) -> std::process::Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap()
    }
}
