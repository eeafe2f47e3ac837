//! Packs the working folder: what .gitignore and .platformignore leave, as a tar.zst that is the same
//! bytes for the same folder, so that an unchanged folder is stored and unpacked once.
//!
//! Left out besides: `.git`, `__pycache__`, `.ipynb_checkpoints`, and any folder that is a Python
//! virtual environment (it holds paths of this machine; requirements are installed on the node).

use crate::client::hex;
use crate::failure::{Failure, on_path};
use crate::output::amounts::bytes;
use ignore::WalkBuilder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Largest folder that is uploaded unless --max-upload says otherwise: code, not data.
pub const DEFAULT_LIMIT_BYTES: u64 = 500 << 20;

/// More entries than this is a data set or an environment, not code; unpacking them would take longer
/// than the run.
const MOST_ENTRIES: usize = 100_000;

/// Fast enough to pack a folder of code while a finger leaves the key, and within a few percent of the
/// next levels in size.
const ZSTD_LEVEL: i32 = 3;

const SKIPPED: [&str; 3] = [".git", "__pycache__", ".ipynb_checkpoints"];

/// What of the folder is packed, by relative path.
#[derive(Debug)]
pub struct Listing {
    root: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    /// Size of all files.
    pub folder_bytes: u64,
}

#[derive(Debug)]
enum Entry {
    Folder,
    File { size_bytes: u64, executable: bool },
    Link { target: PathBuf },
}

/// A packed folder. The file has no name any more: nothing is left behind however the command ends.
#[derive(Debug)]
pub struct Package {
    /// The tar.zst.
    pub file: File,
    /// Its content address.
    pub sha256: String,
    /// Its size.
    pub packed_bytes: u64,
}

impl Listing {
    /// How many files there are.
    pub fn files(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| !matches!(entry, Entry::Folder))
            .count()
    }

    /// Whether a relative path is packed.
    pub fn contains(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }
}

/// Lists what would be packed, and refuses what cannot be.
pub fn list(folder: &Path, limit_bytes: u64) -> Result<Listing, Failure> {
    let root = folder.canonicalize().map_err(on_path("open", folder))?;
    if !root.is_dir() {
        return Err(
            Failure::usage(format!("{} is not a folder", folder.display()))
                .hint("-C DIR names the folder to run in"),
        );
    }
    let mut listing = Listing {
        root: root.clone(),
        entries: BTreeMap::new(),
        folder_bytes: 0,
    };
    let (mut leaving, mut special) = (Vec::new(), Vec::new());
    for found in walker(&root).build() {
        let found =
            found.map_err(|error| Failure::error(format!("cannot read the folder: {error}")))?;
        let path = found
            .path()
            .strip_prefix(&root)
            .unwrap_or(found.path())
            .to_path_buf();
        if path.as_os_str().is_empty() {
            continue;
        }
        if path.to_str().is_none() {
            return Err(
                Failure::error(format!("the name {} is not UTF-8", path.display()))
                    .hint("rename it, or name its folder in .platformignore"),
            );
        }
        let metadata =
            std::fs::symlink_metadata(found.path()).map_err(on_path("read", found.path()))?;
        let kind = metadata.file_type();
        let entry = if kind.is_symlink() {
            let target = std::fs::read_link(found.path()).map_err(on_path("read", found.path()))?;
            if link_leaves(&root, &path, &target) {
                leaving.push(format!("{} -> {}", path.display(), target.display()));
                continue;
            }
            Entry::Link { target }
        } else if kind.is_dir() {
            Entry::Folder
        } else if kind.is_file() {
            listing.folder_bytes += metadata.len();
            Entry::File {
                size_bytes: metadata.len(),
                executable: metadata.permissions().mode() & 0o100 != 0,
            }
        } else {
            let what = if kind.is_fifo() {
                "pipe"
            } else if kind.is_socket() {
                "socket"
            } else {
                "device"
            };
            special.push(format!("{} ({what})", path.display()));
            continue;
        };
        listing.entries.insert(path, entry);
        if listing.entries.len() > MOST_ENTRIES {
            return Err(Failure::error(format!("the folder {} holds more than {MOST_ENTRIES} entries", root.display()))
                .allowed(format!("{MOST_ENTRIES} entries"))
                .hint("run in the folder of the code (-C DIR), or name what is not code in .platformignore"));
        }
    }
    if !leaving.is_empty() {
        return Err(Failure::error(format!(
            "links that leave the folder cannot be packed: {}",
            first(&leaving)
        ))
        .hint("copy what they point to into the folder, or name them in .platformignore"));
    }
    if !special.is_empty() {
        return Err(Failure::error(format!(
            "only files, folders and links can be packed, not: {}",
            first(&special)
        ))
        .hint("name them in .platformignore"));
    }
    check_size(&listing, limit_bytes)?;
    Ok(listing)
}

fn walker(root: &Path) -> WalkBuilder {
    // Within a git repository the .gitignore files above the folder count too, up to the
    // repository's root; outside one, only those of the folder itself.
    let in_git = root
        .ancestors()
        .any(|ancestor| ancestor.join(".git").exists());
    let mut walker = WalkBuilder::new(root);
    walker
        .standard_filters(false)
        .git_ignore(true)
        .require_git(in_git)
        .parents(in_git)
        .follow_links(false)
        .add_custom_ignore_filename(".platformignore")
        .filter_entry(|entry| {
            let skipped = entry
                .file_name()
                .to_str()
                .is_some_and(|name| SKIPPED.contains(&name));
            let folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            let environment =
                folder && entry.depth() > 0 && entry.path().join("pyvenv.cfg").is_file();
            !skipped && !environment
        });
    walker
}

/// Whether a link points out of the folder, by its text and by where it really leads.
fn link_leaves(root: &Path, path: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        return true;
    }
    let mut depth = path.components().count() as i64 - 1;
    for part in target.components() {
        depth += match part {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            _ => 0,
        };
        if depth < 0 {
            return true;
        }
    }
    // A link through another link may lead elsewhere than its text says.
    root.join(path)
        .canonicalize()
        .is_ok_and(|real| !real.starts_with(root))
}

fn first(paths: &[String]) -> String {
    let mut shown = paths
        .iter()
        .take(10)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if paths.len() > 10 {
        shown.push_str(&format!(" and {} more", paths.len() - 10));
    }
    shown
}

fn check_size(listing: &Listing, limit_bytes: u64) -> Result<(), Failure> {
    if listing.folder_bytes <= limit_bytes {
        return Ok(());
    }
    // The largest folders at the top, and the largest files: one of both is what is to be ignored.
    let mut sizes: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for (path, entry) in &listing.entries {
        if let Entry::File { size_bytes, .. } = entry {
            let mut parts = path.components();
            let top = parts
                .next()
                .map(|part| PathBuf::from(part.as_os_str()))
                .unwrap_or_default();
            let top = if parts.next().is_some() {
                top.join("")
            } else {
                top
            };
            *sizes.entry(top).or_default() += size_bytes;
        }
    }
    let mut largest: Vec<(PathBuf, u64)> = sizes.into_iter().collect();
    largest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let shown: Vec<String> = largest
        .iter()
        .take(5)
        .map(|(path, size)| format!("{} ({})", path.display(), bytes(*size)))
        .collect();
    let ignored = largest
        .first()
        .map(|(path, _)| path.display().to_string())
        .unwrap_or_default();
    Err(Failure::error(format!(
        "the folder holds {}, most of it in {}",
        bytes(listing.folder_bytes),
        shown.join(", ")
    ))
    .allowed(format!("{} before compression", bytes(limit_bytes)))
    .hint(format!(
        "leave data out: echo '{ignored}' >> .platformignore; or raise the limit with --max-upload"
    )))
}

/// Packs what was listed.
pub fn pack(listing: &Listing) -> Result<Package, Failure> {
    let mut archive = nameless_file()?;
    let writing = |error: std::io::Error| {
        Failure::error(format!(
            "cannot write the packed folder to {}: {error}",
            std::env::temp_dir().display()
        ))
        .hint("free some room there, or point TMPDIR elsewhere")
    };
    let hashed = Hashed {
        file: archive.try_clone().map_err(writing)?,
        digest: Sha256::new(),
        written: 0,
    };
    let compressed = zstd::Encoder::new(hashed, ZSTD_LEVEL).map_err(writing)?;
    let mut tar = tar::Builder::new(compressed);
    for (path, entry) in &listing.entries {
        append(&mut tar, &listing.root, path, entry)?;
    }
    let hashed = tar
        .into_inner()
        .and_then(zstd::Encoder::finish)
        .map_err(writing)?;
    archive.flush().map_err(writing)?;
    Ok(Package {
        file: archive,
        sha256: hex(&hashed.digest.finalize()),
        packed_bytes: hashed.written,
    })
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    root: &Path,
    path: &Path,
    entry: &Entry,
) -> Result<(), Failure> {
    let packing =
        |error: std::io::Error| Failure::error(format!("cannot pack {}: {error}", path.display()));
    // Everything but the path, the bytes and whether it may be executed is the same on every machine.
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o644);
    header.set_size(0);
    match entry {
        Entry::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            tar.append_data(&mut header, path.join(""), std::io::empty())
                .map_err(packing)
        }
        Entry::Link { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target).map_err(packing)
        }
        Entry::File {
            size_bytes,
            executable,
        } => {
            let file = File::open(root.join(path)).map_err(on_path("read", path))?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(*size_bytes);
            if *executable {
                header.set_mode(0o755);
            }
            let mut exact = Exact {
                file: file.take(*size_bytes),
                missing: *size_bytes,
            };
            tar.append_data(&mut header, path, &mut exact)
                .map_err(packing)
        }
    }
}

/// Gives exactly the bytes the header promises; a file that shrinks under our hands is an error, not
/// a torn archive.
struct Exact {
    file: std::io::Take<File>,
    missing: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.missing -= read as u64;
        if read == 0 && self.missing > 0 && !buffer.is_empty() {
            return Err(std::io::Error::other(
                "it was cut while it was read; try again when nothing writes there",
            ));
        }
        Ok(read)
    }
}

struct Hashed {
    file: File,
    digest: Sha256,
    written: u64,
}

impl Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn nameless_file() -> Result<File, Failure> {
    let path = std::env::temp_dir().join(format!("platform-{}", crate::client::random_hex(8)?));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(on_path("create", &path))?;
    std::fs::remove_file(&path).map_err(on_path("remove", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    fn packed(folder: &Path) -> Vec<String> {
        list(folder, DEFAULT_LIMIT_BYTES)
            .unwrap()
            .entries
            .keys()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn equal_folders_give_equal_bytes_whatever_their_times_and_modes() {
        let files = [("train.py", "print(1)"), ("lib/a.py", "a"), ("z.txt", "z")];
        let (one, two) = (folder(&files), folder(&files));
        let old = File::options()
            .write(true)
            .open(two.path().join("train.py"))
            .unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        std::fs::set_permissions(
            two.path().join("z.txt"),
            std::fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        let hash = |folder: &Path| {
            pack(&list(folder, DEFAULT_LIMIT_BYTES).unwrap())
                .unwrap()
                .sha256
        };
        assert_eq!(hash(one.path()), hash(two.path()));
        std::fs::write(two.path().join("z.txt"), "y").unwrap();
        assert_ne!(hash(one.path()), hash(two.path()));
    }

    #[test]
    fn a_package_holds_sorted_entries_with_nothing_of_this_machine() {
        let folder = folder(&[("b.sh", "b"), ("a/c.py", "c")]);
        std::fs::set_permissions(
            folder.path().join("b.sh"),
            std::fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        symlink("b.sh", folder.path().join("link")).unwrap();
        let package = pack(&list(folder.path(), DEFAULT_LIMIT_BYTES).unwrap()).unwrap();
        let mut file = package.file;
        std::io::Seek::rewind(&mut file).unwrap();
        let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
        let entries: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                format!(
                    "{:o} {} {} {} {}",
                    header.mode().unwrap(),
                    header.mtime().unwrap(),
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    entry.path().unwrap().display()
                )
            })
            .collect();
        assert_eq!(
            entries,
            [
                "755 0 0 0 a/",
                "644 0 0 0 a/c.py",
                "755 0 0 0 b.sh",
                "644 0 0 0 link"
            ]
        );
    }

    #[test]
    fn gitignore_counts_outside_a_repository_and_platformignore_wins() {
        let folder = folder(&[
            (".gitignore", "*.ckpt\ndata/\nkeep.bin\n"),
            (".platformignore", "!keep.bin\nnotes.md\n"),
            ("train.py", ""),
            ("model.ckpt", ""),
            ("data/big.bin", ""),
            ("keep.bin", ""),
            ("notes.md", ""),
            ("sub/.gitignore", "local.txt\n"),
            ("sub/local.txt", ""),
            (".git/config", ""),
            ("sub/__pycache__/a.pyc", ""),
            (".venv/pyvenv.cfg", ""),
            (".venv/lib/x.py", ""),
        ]);
        std::fs::remove_dir_all(folder.path().join(".git")).unwrap();
        let outside = packed(folder.path());
        assert_eq!(
            outside,
            [
                ".gitignore",
                ".platformignore",
                "keep.bin",
                "sub",
                "sub/.gitignore",
                "train.py"
            ]
        );
        std::fs::create_dir(folder.path().join(".git")).unwrap();
        assert_eq!(packed(folder.path()), outside);
    }

    #[test]
    fn a_repository_above_the_folder_ignores_for_it() {
        let folder = folder(&[
            (".git/config", ""),
            (".gitignore", "*.ckpt\n"),
            ("work/a.ckpt", ""),
            ("work/train.py", ""),
        ]);
        assert_eq!(packed(&folder.path().join("work")), ["train.py"]);
    }

    #[test]
    fn a_folder_too_large_names_what_to_ignore() {
        let folder = folder(&[
            ("train.py", "x"),
            ("data/a.bin", &"a".repeat(3000)),
            ("data/b.bin", &"b".repeat(3000)),
            ("weights.pt", &"w".repeat(2000)),
        ]);
        insta::assert_snapshot!(list(folder.path(), 4096).unwrap_err(), @r"
        the folder holds 7.8 KiB, most of it in data/ (5.8 KiB), weights.pt (1.9 KiB), train.py (1 B)
          allowed: 4.0 KiB before compression
          hint: leave data out: echo 'data/' >> .platformignore; or raise the limit with --max-upload
        ");
    }

    #[test]
    fn links_that_leave_the_folder_are_refused_by_name() {
        let folder = folder(&[("sub/a.py", ""), ("ok.py", "")]);
        symlink("../ok.py", folder.path().join("sub/fine")).unwrap();
        assert!(list(folder.path(), DEFAULT_LIMIT_BYTES).is_ok());
        symlink("/etc/passwd", folder.path().join("absolute")).unwrap();
        symlink("../../etc", folder.path().join("sub/up")).unwrap();
        let refused = list(folder.path(), DEFAULT_LIMIT_BYTES)
            .unwrap_err()
            .body
            .message;
        assert!(
            refused.contains("absolute -> /etc/passwd") && refused.contains("sub/up -> ../../etc"),
            "{refused}"
        );
        std::fs::write(folder.path().join(".platformignore"), "absolute\nup\n").unwrap();
        assert!(list(folder.path(), DEFAULT_LIMIT_BYTES).is_ok());
    }

    #[test]
    fn a_pipe_or_a_socket_is_refused_by_name() {
        let folder = folder(&[("train.py", "")]);
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let refused = list(folder.path(), DEFAULT_LIMIT_BYTES)
            .unwrap_err()
            .body
            .message;
        assert!(refused.contains("s (socket)"), "{refused}");
    }
}
