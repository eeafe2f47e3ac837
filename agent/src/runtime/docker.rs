//! The docker runtime, through bollard: containers where the spec names an image.
//!
//! Made by `DockerRuntime::connect(Arc<NodeContext>)`, which fails where no engine answers.
