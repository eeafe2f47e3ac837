//! `platform artifacts`: what runs kept, listed and fetched. A path that a run gave is resolved
//! beneath the target folder by the system, never by string: no name can write outside it.

use super::Outcome;
use crate::client::{Client, hex, root_cause};
use crate::failure::{Failure, exit, on_path};
use crate::output::{Printer, amounts, views};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use http_body_util::BodyExt;
use platform_proto::http::{ArtifactView, TrackedRun};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `platform artifacts list`.
pub async fn list(client: &Client, printer: &Printer, run: &str) -> Outcome {
    let tracked: TrackedRun = client.get(&format!("/v1/tracking/{run}")).await?;
    printer.result(&tracked.artifacts, |paint| {
        match tracked.artifacts.is_empty() {
            true => format!("{run} kept no files\n"),
            false => views::artifacts(&tracked.artifacts, paint),
        }
    })?;
    Ok(exit::DONE)
}

/// `platform artifacts download`.
pub async fn download(
    client: &Client,
    printer: &Printer,
    run: &str,
    path: Option<&str>,
    to: Option<PathBuf>,
) -> Outcome {
    let tracked: TrackedRun = client.get(&format!("/v1/tracking/{run}")).await?;
    let wanted = chosen(&tracked.artifacts, run, path)?;
    let folder = to.unwrap_or_else(|| PathBuf::from(run));
    std::fs::create_dir_all(&folder).map_err(on_path("create", &folder))?;
    let root =
        Dir::open_ambient_dir(&folder, ambient_authority()).map_err(on_path("open", &folder))?;
    let bar = printer.byte_bar(wanted.iter().map(|file| file.size_bytes).sum(), "fetching");
    for file in &wanted {
        fetch(client, &root, file, |bytes| bar.inc(bytes)).await?;
    }
    bar.finish_and_clear();
    printer.result(&wanted, |_| {
        wanted
            .iter()
            .map(|file| format!("{}\n", folder.join(&file.path).display()))
            .collect()
    })?;
    let size: u64 = wanted.iter().map(|file| file.size_bytes).sum();
    let files = match wanted.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    printer.note(&format!("{files}, {}", amounts::bytes(size)));
    Ok(exit::DONE)
}

fn chosen<'a>(
    files: &'a [ArtifactView],
    run: &str,
    path: Option<&str>,
) -> Result<Vec<&'a ArtifactView>, Failure> {
    let Some(path) = path else {
        return Ok(files.iter().collect());
    };
    let asked = path.trim_end_matches('/');
    let beneath = format!("{asked}/");
    let found: Vec<&ArtifactView> = files
        .iter()
        .filter(|file| file.path == asked || file.path.starts_with(&beneath))
        .collect();
    if found.is_empty() {
        let known: Vec<&str> = files
            .iter()
            .take(10)
            .map(|file| file.path.as_str())
            .collect();
        return Err(Failure::not_found(format!("{run} kept no file `{path}`"))
            .allowed(if known.is_empty() {
                "it kept none".to_owned()
            } else {
                known.join(", ")
            })
            .hint(format!("platform artifacts list {run}")));
    }
    Ok(found)
}

async fn fetch(
    client: &Client,
    root: &Dir,
    file: &ArtifactView,
    progress: impl Fn(u64),
) -> Result<(), Failure> {
    let path = Path::new(&file.path);
    let writing =
        |error: std::io::Error| Failure::error(format!("cannot write {}: {error}", file.path));
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        root.create_dir_all(parent).map_err(writing)?;
    }
    let name = path
        .file_name()
        .ok_or_else(|| Failure::error(format!("`{}` is not a name of a file", file.path)))?;
    let partial = path.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    let mut output = root
        .open_with(
            &partial,
            OpenOptions::new().write(true).create(true).truncate(true),
        )
        .map_err(writing)?;
    let mut body = client.stream(&format!("/v1/blobs/{}", file.sha256)).await?;
    let mut digest = Sha256::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::unavailable(format!("{} broke off: {}", file.path, root_cause(&error)))
                .hint("ask again; what is whole stays")
        })?;
        if let Ok(chunk) = frame.into_data() {
            digest.update(&chunk);
            output.write_all(&chunk).map_err(writing)?;
            progress(chunk.len() as u64);
        }
    }
    if hex(&digest.finalize()) != file.sha256 {
        let _ = root.remove_file(&partial);
        return Err(Failure::error(format!(
            "{} arrived with other bytes than were stored",
            file.path
        ))
        .hint("ask again"));
    }
    root.rename(&partial, root, path).map_err(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ArtifactView {
        ArtifactView {
            path: path.to_owned(),
            sha256: String::new(),
            size_bytes: 1,
        }
    }

    #[test]
    fn a_file_or_a_folder_is_chosen_by_its_path() {
        let files = [
            file("plots/loss.png"),
            file("plots/a/b.png"),
            file("plotsy.txt"),
        ];
        let names = |path| {
            chosen(&files, "run-1", path)
                .map(|found| found.iter().map(|f| f.path.clone()).collect::<Vec<_>>())
        };
        assert_eq!(
            names(Some("plots/")).unwrap(),
            ["plots/loss.png", "plots/a/b.png"]
        );
        assert_eq!(names(Some("plotsy.txt")).unwrap(), ["plotsy.txt"]);
        assert_eq!(names(None).unwrap().len(), 3);
        insta::assert_snapshot!(names(Some("plot")).unwrap_err());
    }
}
