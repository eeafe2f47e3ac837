//! Words of the engine and of registries, told apart: whose fault, and what to do.
//!
//! Pure. What a spec can cause at will (a mistyped image, a registry that is not there) is the user's
//! fault, or one bad spec would cordon node after node. A full disk and a missing driver are the node's.

use crate::runtime::LaunchFailure;

const NO_SPACE: [&str; 2] = ["no space left on device", "disk quota exceeded"];
const UNREACHABLE: [&str; 12] = [
    "dial tcp",
    "no such host",
    "i/o timeout",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "tls handshake",
    "context deadline exceeded",
    "client.timeout",
    "temporary failure in name resolution",
    "server misbehaving",
    "unexpected eof",
];
const REFUSED: [&str; 5] = [
    "access denied",
    "unauthorized",
    "authentication required",
    "no basic auth credentials",
    "access forbidden",
];
const ABSENT: [&str; 4] = [
    "manifest unknown",
    "manifest for",
    "repository does not exist",
    "not found",
];
const BAD_NAME: [&str; 3] = [
    "invalid reference format",
    "invalid repository name",
    "must be lowercase",
];

fn one_of(message: &str, patterns: &[&str]) -> bool {
    let message = message.to_ascii_lowercase();
    patterns.iter().any(|pattern| message.contains(pattern))
}

fn full(image: &str, message: &str) -> LaunchFailure {
    LaunchFailure::node(format!(
        "image {image}: the node's disk is full ({message}); free some space under the engine's data folder"
    ))
}

/// Why an image could not be pulled.
pub(super) fn pull(image: &str, message: &str) -> LaunchFailure {
    let message = message.trim();
    if one_of(message, &NO_SPACE) {
        full(image, message)
    } else if one_of(message, &BAD_NAME) {
        LaunchFailure::user(format!(
            "image {image:?} is not a name ({message}); write such as registry.example/team/image:tag"
        ))
    } else if one_of(message, &UNREACHABLE) {
        LaunchFailure::user(format!(
            "image {image} is not on this node and its registry cannot be reached ({message}); check the name, or load the image on the node"
        ))
    } else if one_of(message, &REFUSED) {
        LaunchFailure::user(format!(
            "image {image}: the registry refuses access, or has no such repository ({message}); check the name, or make the image public to the nodes"
        ))
    } else if one_of(message, &ABSENT) {
        LaunchFailure::user(format!(
            "image {image}: the registry has no such image ({message}); check name and tag"
        ))
    } else {
        LaunchFailure::user(format!("image {image} cannot be pulled: {message}"))
    }
}

/// Why a container could not be created or started.
pub(super) fn start(message: &str) -> LaunchFailure {
    let message = message.trim();
    if one_of(message, &NO_SPACE) {
        LaunchFailure::node(format!(
            "the node's disk is full ({message}); free some space under the engine's data folder"
        ))
    } else if one_of(
        message,
        &[
            "could not select device driver",
            "unknown or invalid runtime name",
            "cdi device",
        ],
    ) {
        LaunchFailure::node(format!(
            "the engine cannot give devices to containers ({message}); install the NVIDIA container toolkit on the node"
        ))
    } else if one_of(message, &["docker-init"]) {
        LaunchFailure::node(format!(
            "the engine has no docker-init ({message}); install tini on the node"
        ))
    } else if one_of(message, &["no such image"]) {
        LaunchFailure::user(format!(
            "{message}; it was removed from the node after it had been found there"
        ))
    } else if one_of(message, &["executable file not found", "exec format error"]) {
        LaunchFailure::user(format!("the image cannot run the command: {message}"))
    } else {
        LaunchFailure::node(format!("the engine cannot start the container: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_says_what_went_wrong_and_whose_fault_it_is() {
        let table = [
            (
                "manifest for a:1 not found: manifest unknown: manifest unknown",
                "no such image",
                false,
            ),
            (
                "pull access denied for a, repository does not exist or may require 'docker login': denied",
                "refuses access",
                false,
            ),
            (
                "Head \"https://r.example/v2/a/manifests/1\": no basic auth credentials",
                "refuses access",
                false,
            ),
            (
                "write /var/lib/docker/tmp/x: no space left on device",
                "disk is full",
                true,
            ),
            (
                "Get \"https://r.example/v2/\": dial tcp: lookup r.example: no such host",
                "cannot be reached",
                false,
            ),
            (
                "Get \"https://r.example/v2/\": net/http: TLS handshake timeout",
                "cannot be reached",
                false,
            ),
            ("invalid reference format", "is not a name", false),
            ("something new", "something new", false),
        ];
        for (message, says, node_fault) in table {
            let failure = pull("a:1", message);
            assert!(failure.message.contains(says), "{message} -> {failure}");
            assert!(failure.message.contains("a:1"), "{failure}");
            assert_eq!(failure.node_fault, node_fault, "{message}");
        }
    }

    #[test]
    fn a_start_blames_the_node_unless_the_image_lacks_the_command() {
        let table = [
            (
                "could not select device driver \"\" with capabilities: [[gpu]]",
                true,
            ),
            (
                "exec: \"python\": executable file not found in $PATH: unknown",
                false,
            ),
            ("No such image: a:1", false),
            (
                "failed to start shim: fork/exec: resource temporarily unavailable",
                true,
            ),
        ];
        for (message, node_fault) in table {
            assert_eq!(start(message).node_fault, node_fault, "{message}");
        }
    }
}
