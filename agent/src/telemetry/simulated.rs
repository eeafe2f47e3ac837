//! Made-up devices for machines that have none: `--devices 8xA100-80G`, or `8xA100-80G/4` for two NVLink
//! islands of four.
//!
//! Pure. Deliberately lacks readings: a made-up utilisation would be a lie in somebody's report.

use super::SimulatedDevices;
use agent_core::{Device, Wiring};
use std::str::FromStr;

/// Most devices in one simulated node. A real one has at most 16; this leaves room for tests of scale.
const LIMIT_DEVICES: u32 = 1_024;
/// Most memory of one device, in GiB.
const LIMIT_MEMORY_GIB: u64 = 1_024;

/// Memory of models as they are mostly sold, where the user leaves it out.
const KNOWN_GIB: [(&str, u64); 18] = [
    ("T4", 16),
    ("P100", 16),
    ("V100", 32),
    ("A10", 24),
    ("A10G", 24),
    ("A30", 24),
    ("A40", 48),
    ("L4", 24),
    ("L40", 48),
    ("L40S", 48),
    ("A100", 80),
    ("H100", 80),
    ("H200", 141),
    ("B200", 180),
    ("RTX-3090", 24),
    ("RTX-4090", 24),
    ("RTX-5090", 32),
    ("RTX-A6000", 48),
];

const FORM: &str = "write COUNTxMODEL-MEMORYG, such as 8xA100-80G, 1xH100-80G or 4xT4 (a known model needs no memory), and /N behind it for NVLink islands of N";

/// Why a description of simulated devices was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulatedDevicesError {
    /// Not of the form at all.
    #[error("devices {0:?} are not of the form; {FORM}")]
    Form(String),
    /// The count is not a number, or out of range.
    #[error("devices {value:?}: count {count:?} must be 1 to {LIMIT_DEVICES}; {FORM}")]
    Count {
        /// What was given.
        value: String,
        /// Its count.
        count: String,
    },
    /// The model has letters that a model cannot have.
    #[error("devices {value:?}: model {model:?} must be letters, digits, dots and dashes; {FORM}")]
    Model {
        /// What was given.
        value: String,
        /// Its model.
        model: String,
    },
    /// The memory is out of range.
    #[error("devices {value:?}: memory {memory:?} must be 1G to {LIMIT_MEMORY_GIB}G; {FORM}")]
    Memory {
        /// What was given.
        value: String,
        /// Its memory.
        memory: String,
    },
    /// The size of islands does not divide the devices.
    #[error("devices {value:?}: islands of {island:?} must divide its {count} devices; {FORM}")]
    Island {
        /// What was given.
        value: String,
        /// Its islands.
        island: String,
        /// Its devices.
        count: u32,
    },
    /// No memory given, and the model is not known here.
    #[error(
        "devices {value:?}: the memory of model {model:?} is not known; add it, such as {value}-24G"
    )]
    UnknownModel {
        /// What was given.
        value: String,
        /// Its model.
        model: String,
    },
}

impl FromStr for SimulatedDevices {
    type Err = SimulatedDevicesError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let (devices, island) = match value.split_once('/') {
            Some((devices, island)) => (devices, Some(island)),
            None => (value, None),
        };
        let (count, model) = devices
            .split_once(['x', 'X'])
            .filter(|(count, model)| !count.is_empty() && !model.is_empty())
            .ok_or_else(|| SimulatedDevicesError::Form(value.to_owned()))?;
        let number = count.parse().ok().filter(|number| {
            (1..=LIMIT_DEVICES).contains(number) && count.bytes().all(|byte| byte.is_ascii_digit())
        });
        let count = number.ok_or_else(|| SimulatedDevicesError::Count {
            value: value.to_owned(),
            count: count.to_owned(),
        })?;
        let island = island
            .map(|island| {
                let size = island.parse().ok();
                let size = size.filter(|size| *size > 0_u32 && count % size == 0);
                size.ok_or_else(|| SimulatedDevicesError::Island {
                    value: value.to_owned(),
                    island: island.to_owned(),
                    count,
                })
            })
            .transpose()?;
        let letters_are_right = model
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.');
        if !letters_are_right || model.starts_with('-') || model.ends_with('-') {
            return Err(SimulatedDevicesError::Model {
                value: value.to_owned(),
                model: model.to_owned(),
            });
        }
        let (family, memory_gib) = match memory_suffix(model) {
            Some((family, memory)) => {
                let gib = memory[..memory.len() - 1].parse().ok();
                let gib = gib.filter(|gib| (1..=LIMIT_MEMORY_GIB).contains(gib));
                let gib = gib.ok_or_else(|| SimulatedDevicesError::Memory {
                    value: value.to_owned(),
                    memory: memory.to_owned(),
                })?;
                (family.to_owned(), gib)
            }
            None => KNOWN_GIB
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(model))
                .map(|(known, gib)| ((*known).to_owned(), *gib))
                .ok_or_else(|| SimulatedDevicesError::UnknownModel {
                    value: value.to_owned(),
                    model: model.to_owned(),
                })?,
        };
        Ok(Self {
            count,
            model: format!("{family}-{memory_gib}G"),
            memory_mib: memory_gib * 1024,
            island,
        })
    }
}

/// Splits "A100-80G" in "A100" and "80G".
fn memory_suffix(model: &str) -> Option<(&str, &str)> {
    let (family, memory) = model.rsplit_once('-')?;
    let digits = memory.strip_suffix(['G', 'g'])?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (all_digits && !family.is_empty()).then_some((family, memory))
}

/// The devices of a node, in the order given. Ids depend on node and index alone, so that a restart
/// finds the same devices.
pub fn devices(node: &str, groups: &[SimulatedDevices]) -> Vec<Device> {
    let mut islands_before = 0;
    let mut devices = Vec::new();
    for group in groups {
        for within in 0..group.count {
            let index = devices.len() as u32;
            let island = group.island.map(|size| islands_before + within / size);
            devices.push(Device {
                id: format!("SIM-{node}-{index}"),
                index,
                model: group.model.clone(),
                memory_mib: group.memory_mib,
                simulated: true,
                // Of an island nothing more is made up than that it is one.
                wiring: Wiring {
                    nvlink_island: island,
                    ..Wiring::default()
                },
            });
        }
        islands_before += group.island.map_or(0, |size| group.count / size);
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SimulatedDevices, SimulatedDevicesError> {
        text.parse()
    }

    #[test]
    fn devices_are_read_with_their_memory_or_the_known_one() {
        let table = [
            ("8xA100-80G", 8, "A100-80G", 81_920),
            ("1xT4", 1, "T4-16G", 16_384),
            ("2Xh100", 2, "H100-80G", 81_920),
            ("4xRTX-4090", 4, "RTX-4090-24G", 24_576),
            ("4xRTX-9999-48g", 4, "RTX-9999-48G", 49_152),
        ];
        for (text, count, model, memory_mib) in table {
            let expected = SimulatedDevices {
                count,
                model: model.to_owned(),
                memory_mib,
                island: None,
            };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn malformed_devices_are_refused_with_value_form_and_examples() {
        for text in [
            "",
            "8",
            "A100",
            "xA100",
            "8x",
            "0xA100",
            "-1xA100",
            "+2xT4",
            "99999xT4",
            "2xA 100",
            "2x-T4",
            "2xA100-0G",
            "2xA100-9999G",
            "2xMystery",
            "2xA100-",
            "8×A100",
            "8xA100/",
            "8xA100/0",
            "8xA100/3",
            "8xA100/16",
            "8xA100/-4",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains("such as"), "{error}");
        }
    }

    #[test]
    fn islands_are_numbered_through_the_node_and_only_where_they_are_asked_for() {
        let groups = [
            parse("4xA100-80G/2").unwrap(),
            parse("1xT4").unwrap(),
            parse("2xA100-80G/2").unwrap(),
        ];
        let islands: Vec<_> = devices("rig", &groups)
            .iter()
            .map(|device| device.wiring.nvlink_island)
            .collect();
        let expected = [Some(0), Some(0), Some(1), Some(1), None, Some(2), Some(2)];
        assert_eq!(islands, expected);
    }

    #[test]
    fn mixed_models_get_one_row_of_indexes_and_stable_ids() {
        let groups = [parse("2xA100-80G").unwrap(), parse("1xT4").unwrap()];
        let devices = devices("rig", &groups);
        let seen: Vec<(&str, u32, &str, bool)> = devices
            .iter()
            .map(|device| {
                (
                    device.id.as_str(),
                    device.index,
                    device.model.as_str(),
                    device.simulated,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("SIM-rig-0", 0, "A100-80G", true),
                ("SIM-rig-1", 1, "A100-80G", true),
                ("SIM-rig-2", 2, "T4-16G", true),
            ]
        );
    }
}
