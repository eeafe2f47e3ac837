//! Short model names of devices, as users ask for them: "A100-80G" of "NVIDIA A100-SXM4-80GB".
//!
//! Pure. Two boards that a training script cannot tell apart get one name: the vendor, the form factor
//! and the kind of memory are left out, the amount of memory stays.

/// Amounts of memory that boards are sold with. The driver reports somewhat less than the label says
/// (a T4 of 16 GB shows 15 GiB), so the next label up is the one users know.
const SOLD_GIB: [u32; 27] = [
    2, 3, 4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 72, 80, 94, 96, 120, 128, 141, 144, 180,
    192, 256, 288,
];

/// Words of a product name that say nothing a user would ask for.
const LEFT_OUT: [&str; 9] = [
    "nvidia",
    "tesla",
    "geforce",
    "quadro",
    "generation",
    "pcie",
    "nvl",
    "gpu",
    "graphics",
];

/// The short name of a product as NVML names it, with this much memory.
pub fn shorten(name: &str, memory_mib: u64) -> String {
    let mut words = Vec::new();
    let mut labelled_gib = None;
    let mut slice = None;
    let mut parts = name
        .split(|letter: char| letter.is_whitespace() || letter == '-')
        .filter(|word| !word.is_empty());
    while let Some(word) = parts.next() {
        let lower = word.to_ascii_lowercase();
        if lower == "mig" {
            // A slice of a board is named by its profile: "MIG 1g.10gb".
            slice = parts.next().map(str::to_ascii_lowercase);
        } else if let Some(gib) = gigabytes(&lower) {
            labelled_gib = Some(gib);
        } else if !LEFT_OUT.contains(&lower.as_str())
            && !lower.starts_with("sxm")
            && !lower.starts_with("hbm")
        {
            words.push(plain(word));
        }
    }
    words.retain(|word| !word.is_empty());
    let family = if words.is_empty() {
        "GPU".to_owned()
    } else {
        words.join("-")
    };
    match slice {
        Some(profile) => format!("{family}-{}", plain(&profile)),
        None => format!("{family}-{}G", memory_gib(labelled_gib, memory_mib)),
    }
}

/// Of "80gb".
fn gigabytes(word: &str) -> Option<u32> {
    word.strip_suffix("gb")?.parse().ok()
}

/// A model is typed on command lines: letters, digits and dots only.
fn plain(word: &str) -> String {
    word.chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '.')
        .collect()
}

fn memory_gib(labelled_gib: Option<u32>, memory_mib: u64) -> u64 {
    // A label far from what the driver reports speaks of something else: a "GH200 480GB" has 480 GB on
    // its processor's side and 96 on the device.
    if let Some(gib) = labelled_gib.map(u64::from)
        && memory_mib.abs_diff(gib * 1024) * 100 <= gib * 1024 * 15
    {
        return gib;
    }
    SOLD_GIB
        .iter()
        .map(|gib| u64::from(*gib))
        .find(|gib| gib * 1024 >= memory_mib)
        .unwrap_or_else(|| memory_mib.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn products_get_the_names_that_users_ask_for() {
        let table = [
            ("NVIDIA A100-SXM4-80GB", 81_920, "A100-80G"),
            ("NVIDIA A100-PCIE-40GB", 40_960, "A100-40G"),
            ("NVIDIA A100 80GB PCIe", 81_920, "A100-80G"),
            ("NVIDIA H100 80GB HBM3", 81_559, "H100-80G"),
            ("NVIDIA H100 PCIe", 81_559, "H100-80G"),
            ("NVIDIA H100 NVL", 95_830, "H100-94G"),
            ("NVIDIA H200", 143_771, "H200-141G"),
            ("NVIDIA H20", 97_871, "H20-96G"),
            ("NVIDIA B200", 183_359, "B200-180G"),
            ("NVIDIA GH200 480GB", 97_871, "GH200-96G"),
            ("NVIDIA GeForce RTX 4090", 24_564, "RTX-4090-24G"),
            ("NVIDIA GeForce RTX 2080 Ti", 11_264, "RTX-2080-Ti-11G"),
            ("NVIDIA RTX 6000 Ada Generation", 49_140, "RTX-6000-Ada-48G"),
            ("NVIDIA RTX A6000", 49_140, "RTX-A6000-48G"),
            ("NVIDIA L40S", 46_068, "L40S-48G"),
            ("NVIDIA L4", 23_034, "L4-24G"),
            ("NVIDIA A10G", 23_028, "A10G-24G"),
            ("Tesla T4", 15_360, "T4-16G"),
            ("Tesla V100-SXM2-32GB", 32_768, "V100-32G"),
            ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9_728, "A100-1g.10gb"),
        ];
        for (name, memory_mib, short) in table {
            assert_eq!(shorten(name, memory_mib), short, "{name}");
        }
    }

    #[test]
    fn an_unknown_product_still_gets_a_name_that_can_be_typed() {
        assert_eq!(shorten("", 1_024), "GPU-2G");
        assert_eq!(shorten("NVIDIA Z9 (rev/2) ™", 400_000), "Z9-rev2-391G");
    }
}
