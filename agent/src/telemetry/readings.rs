//! What simulated devices are said to be used, from a file that a trial or a test writes: an index, or `*`
//! for every other device, to its readings.
//!
//! Nothing is made up: a device or a reading that the file does not name is unread, and so is all of them
//! while the file is not there or cannot be understood.

use super::DeviceSample;
use agent_core::Device;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Readings by index of the device, or `*`.
pub(super) type Readings = BTreeMap<String, Told>;

/// What the file says of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// Of its compute.
    #[serde(default)]
    used_percent: Option<f64>,
    /// Of its memory.
    #[serde(default)]
    memory_used_mib: Option<u64>,
}

/// Reads the file as it is now.
pub(super) fn read(path: &Path) -> Readings {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read what simulated devices are used");
            return Readings::new();
        }
    };
    serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "what simulated devices are used is not understood");
        Readings::new()
    })
}

/// The sample of one device.
pub(super) fn sample(device: &Device, told: &Readings) -> DeviceSample {
    let told = told
        .get(&device.index.to_string())
        .or_else(|| told.get("*"))
        .copied()
        .unwrap_or_default();
    DeviceSample {
        device: device.id.clone(),
        utilization_percent: told.used_percent,
        memory_used_mib: told.memory_used_mib,
        ..DeviceSample::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::simulated;

    #[test]
    fn a_file_says_what_simulated_devices_are_used_and_nothing_is_made_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("readings.json");
        let devices = simulated::devices("rig", &["3xT4".parse().expect("devices")]);
        let used = |text: &str| -> Vec<_> {
            std::fs::write(&path, text).expect("written");
            let told = read(&path);
            devices
                .iter()
                .map(|device| sample(device, &told))
                .map(|sample| (sample.utilization_percent, sample.memory_used_mib))
                .collect()
        };
        let unread = (None, None);
        assert_eq!(
            used(
                r#"{"1": {"used_percent": 0, "memory_used_mib": 300}, "*": {"used_percent": 98.5}}"#
            ),
            [
                (Some(98.5), None),
                (Some(0.0), Some(300)),
                (Some(98.5), None)
            ]
        );
        for text in ["", "{", "[]", r#"{"0": {"use": 3}}"#, r#"{"7": {}}"#] {
            assert_eq!(used(text), [unread; 3], "{text:?}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(read(&path).is_empty());
    }
}
