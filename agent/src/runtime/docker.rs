//! The docker runtime, through bollard: containers where the spec names an image.
//!
//! Made by `DockerRuntime::connect(context: Arc<NodeContext>, agent_folder: &Path)`, async, which fails
//! with a `LaunchFailure` where no engine answers. The folder tells this agent's containers from those
//! of another agent at the same engine.
