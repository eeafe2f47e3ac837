//! Embeds the Python SDK, so that a node needs nothing but this binary: every workload finds
//! `engineersofai_platform` on its PYTHONPATH, in the version that fits this agent.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const PACKAGES: &[&str] = &["engineersofai_platform"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sdk = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../sdk/python");
    let mut files = Vec::new();
    for package in PACKAGES {
        for root in [sdk.join(package), sdk.join("src").join(package)] {
            if root.is_dir() {
                collect(&root, Path::new(package), &mut files)?;
            }
        }
    }
    files.sort();
    let mut code = String::from("pub(super) const FILES: &[(&str, &[u8])] = &[\n");
    for (name, path) in &files {
        let path = path.canonicalize()?;
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    code.push_str("];\n");
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("sdk_files.rs");
    fs::write(out, code)?;
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", sdk.display());
    Ok(())
}

fn collect(
    folder: &Path,
    name: &Path,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), Box<dyn std::error::Error>> {
    // A folder's own time changes when a file is added or removed.
    println!("cargo:rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = name.join(entry.file_name());
        if path.is_dir() {
            if entry.file_name() != "__pycache__" {
                collect(&path, &name, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|ending| ending == "py" || ending == "typed")
        {
            println!("cargo:rerun-if-changed={}", path.display());
            files.push((name.display().to_string(), path));
        }
    }
    Ok(())
}
