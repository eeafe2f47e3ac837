//! The agent's shell: session, supervisor, runtimes and telemetry
