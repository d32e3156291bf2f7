//! The files to count.

use std::env;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

/// How much is taken at most, so that the tour ends soon on a small machine and in a debug build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Larger ones are passed over: one worker would be busy with it long after the others.
    pub(crate) bytes_per_file: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { files: 6000, bytes: 64 << 20, bytes_per_file: 1 << 20 }
    }
}

/// One file as it was when it was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl File {
    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self { path, bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// A bounded choice of text files.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<File>,
    /// Whether there are more than were taken.
    pub(crate) bounded: bool,
}

impl Corpus {
    /// The files of `input`; without it, of the sources that cargo has unpacked on this machine, or else of this repository.
    pub(crate) fn choose(input: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(folder) = input {
            let folder = folder.canonicalize().with_context(|| format!("--input {}", folder.display()))?;
            let corpus = Self::read(&folder, Bounds::default())?;
            if corpus.files.is_empty() {
                bail!("--input {}: there is no text file in it", folder.display());
            }
            return Ok(corpus);
        }
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for folder in cargo_home().map(|home| home.join("registry/src")).into_iter().chain([repository]) {
            // A folder that is not there is not the one.
            let Ok(folder) = folder.canonicalize() else { continue };
            let corpus = Self::read(&folder, Bounds::default())?;
            if !corpus.files.is_empty() {
                return Ok(corpus);
            }
        }
        bail!("there are no text files to count: name a folder with --input")
    }

    /// Walks in the order of names, so that two runs choose the same files. Hidden folders, build output and symbolic
    /// links are passed over, as is what has the name of no text.
    pub(crate) fn read(folder: &Path, bounds: Bounds) -> anyhow::Result<Self> {
        let mut corpus = Self { folder: folder.to_path_buf(), files: Vec::new(), bounded: false };
        let mut bytes = 0;
        let mut open = vec![folder.to_path_buf()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).with_context(|| format!("{}", path.display()))?;
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).with_context(|| format!("{}", path.display()))?;
                let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                entries.retain(|entry| !is_passed_over(entry));
                // The last is opened first.
                entries.sort_by(|a, b| b.cmp(a));
                open.extend(entries);
            } else if metadata.is_file() && is_text(&path) {
                if metadata.len() > bounds.bytes_per_file {
                    corpus.bounded = true;
                    continue;
                }
                if corpus.files.len() == bounds.files || bytes + metadata.len() > bounds.bytes {
                    corpus.bounded = true;
                    break;
                }
                bytes += metadata.len();
                corpus.files.push(File::new(path, &metadata));
            }
        }
        Ok(corpus)
    }

    /// Files that are not what they were when they were chosen: their counts need not agree.
    pub(crate) fn changed(&self) -> Vec<&Path> {
        let is_same = |file: &File| {
            fs::symlink_metadata(&file.path).is_ok_and(|now| File::new(file.path.clone(), &now) == *file)
        };
        self.files.iter().filter(|file| !is_same(file)).map(|file| file.path.as_path()).collect()
    }
}

fn cargo_home() -> Option<PathBuf> {
    let home = || Some(Path::new(&env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

fn is_passed_over(path: &Path) -> bool {
    // Tasks are sent as text.
    path.to_str().is_none()
        || path.file_name().is_some_and(|name| name == "target" || name.as_encoded_bytes().starts_with(b"."))
}

fn is_text(path: &Path) -> bool {
    const ENDINGS: [&str; 20] = [
        "c", "cpp", "css", "csv", "go", "h", "html", "java", "js", "json", "log", "md", "proto", "py", "rs",
        "sh", "toml", "ts", "txt", "yml",
    ];
    const NAMES: [&str; 5] = ["LICENSE", "README", "COPYING", "CHANGELOG", "Makefile"];
    let ending = path.extension().and_then(|ending| ending.to_str());
    let name = path.file_name().and_then(|name| name.to_str());
    ending.is_some_and(|ending| ENDINGS.contains(&ending)) || name.is_some_and(|name| NAMES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { files: 100, bytes: 10_000, bytes_per_file: 1000 };

    /// `names` with the sizes of the files.
    fn folder(names: &[(&str, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x".repeat(*bytes)).unwrap();
        }
        folder
    }

    fn names(corpus: &Corpus) -> Vec<String> {
        let folder = &corpus.folder;
        let name = |file: &File| file.path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        corpus.files.iter().map(name).collect()
    }

    #[test]
    fn text_files_are_chosen_in_the_order_of_their_names() {
        let folder = folder(&[
            ("b.rs", 1),
            ("a/z.md", 1),
            ("a/c/d.txt", 1),
            ("a/picture.png", 1),
            ("target/x.rs", 1),
            (".git/x.txt", 1),
            ("LICENSE", 1),
        ]);
        let corpus = Corpus::read(folder.path(), BOUNDS).unwrap();
        assert_eq!(names(&corpus), ["LICENSE", "a/c/d.txt", "a/z.md", "b.rs"]);
        assert!(!corpus.bounded);
    }

    #[test]
    fn no_more_is_taken_than_the_bounds_allow_and_it_is_said() {
        let folder = folder(&[("1.rs", 400), ("2.rs", 1001), ("3.rs", 400), ("4.rs", 400), ("5.rs", 400)]);
        let read = |bounds| Corpus::read(folder.path(), bounds).unwrap();
        assert_eq!(names(&read(BOUNDS)), ["1.rs", "3.rs", "4.rs", "5.rs"], "all but the large one");
        assert!(read(BOUNDS).bounded);
        assert_eq!(names(&read(Bounds { files: 2, ..BOUNDS })), ["1.rs", "3.rs"]);
        assert_eq!(names(&read(Bounds { bytes: 1200, ..BOUNDS })), ["1.rs", "3.rs", "4.rs"]);
        assert!(read(Bounds { bytes: 1200, ..BOUNDS }).bounded);
    }

    #[test]
    fn a_folder_without_text_is_refused_when_it_was_named() {
        let folder = folder(&[("picture.png", 1)]);
        assert!(Corpus::choose(Some(folder.path())).is_err());
        assert!(Corpus::choose(Some(&folder.path().join("nowhere"))).is_err());
    }

    #[test]
    fn there_is_always_something_to_count() {
        let corpus = Corpus::choose(None).unwrap();
        assert!((1..=Bounds::default().files).contains(&corpus.files.len()));
    }

    #[test]
    fn a_file_that_changed_is_noticed() {
        let folder = folder(&[("1.rs", 1), ("2.rs", 1)]);
        let corpus = Corpus::read(folder.path(), BOUNDS).unwrap();
        assert!(corpus.changed().is_empty());
        fs::write(folder.path().join("2.rs"), "longer").unwrap();
        assert_eq!(corpus.changed(), [folder.path().join("2.rs")]);
    }
}
