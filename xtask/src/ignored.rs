//! What ignored tests need, by their own word: the reason in the attribute.
//!
//! | reason | meaning |
//! |---|---|
//! | `needs etcd: cargo xtask test` | any etcd will do, the embedded server too |
//! | `needs a real etcd: <why>` | what the embedded server cannot stand in for |
//! | `entry of child processes` | nothing: this is where child processes of other tests begin |

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::code;
use crate::workspace::Package;

const ANY: &str = "needs etcd: cargo xtask test";
const REAL: &str = "needs a real etcd: ";
const ENTRY: &str = "entry of child processes";

/// What an ignored test needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// An etcd, real or embedded.
    AnyEtcd,
    /// A real etcd, for this reason.
    RealEtcd(String),
    /// No etcd at all.
    Nothing,
}

/// A test with the attribute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// Of the attribute, counted from one.
    pub(crate) line: usize,
    /// The function's name.
    pub(crate) name: String,
    /// `None` when the reason says none of the three.
    pub(crate) need: Option<Need>,
    /// Whether it stands in no module within its file, so that the file and its name are its path.
    pub(crate) at_top: bool,
}

/// A test that cannot run on the embedded server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Its package.
    pub(crate) package: String,
    /// Its test binary.
    pub(crate) binary: String,
    /// Its name with the modules before it, as test runners know it.
    pub(crate) name: String,
    /// What it needs that only a real etcd has.
    pub(crate) why: String,
}

/// The ignored tests of a source file, given as it is and as [`code::blank`] leaves it.
pub(crate) fn ignored(text: &str, code: &str) -> Vec<Ignored> {
    let mut found = Vec::new();
    for (index, (line, code_line)) in text.lines().zip(code.lines()).enumerate() {
        if !squeezed(code_line).starts_with("#[ignore") {
            continue;
        }
        let reason =
            line.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map(|(reason, _)| reason);
        let below = code.lines().skip(index + 1);
        let name = below.flat_map(code::names).skip_while(|(_, name, _)| *name != "fn").nth(1);
        found.push(Ignored {
            line: index + 1,
            name: name.map_or_else(String::new, |(_, name, _)| name.to_owned()),
            need: reason.and_then(need),
            at_top: code_line.starts_with('#'),
        });
    }
    found
}

fn need(reason: &str) -> Option<Need> {
    match reason {
        ANY => Some(Need::AnyEtcd),
        ENTRY => Some(Need::Nothing),
        _ => {
            let why = reason.strip_prefix(REAL)?.trim();
            (!why.is_empty()).then(|| Need::RealEtcd(why.to_owned()))
        }
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect()
}

/// The tests of these packages that need a real etcd.
pub(crate) fn need_a_real_etcd(packages: &[Package]) -> anyhow::Result<Vec<LeftOut>> {
    let mut found = Vec::new();
    for package in packages {
        for target in package.targets.iter().filter(|target| target.kind == "test") {
            for (file, module) in sources(&target.source)? {
                let text =
                    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                for test in ignored(&text, &code::blank(&text)) {
                    if let Some(Need::RealEtcd(why)) = test.need {
                        let (package, binary) = (package.name.clone(), target.name.clone());
                        found.push(LeftOut { package, binary, name: module.clone() + &test.name, why });
                    }
                }
            }
        }
    }
    Ok(found)
}

/// The source files of a test binary, each with what stands before the names in it: `tests/x.rs` alone, or all that is beside
/// `tests/x/main.rs`.
fn sources(first: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = vec![(first.to_path_buf(), String::new())];
    if first.file_name().is_none_or(|name| name != "main.rs") {
        return Ok(found);
    }
    let mut folders = vec![(first.parent().unwrap_or(first).to_path_buf(), String::new())];
    while let Some((folder, module)) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push((path, format!("{module}{stem}::")));
            } else if path.extension().is_some_and(|kind| kind == "rs") && path != first {
                let module = if stem == "mod" { module.clone() } else { format!("{module}{stem}::") };
                found.push((path, module));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{self, Target};

    fn read(text: &str) -> Vec<(String, Option<Need>)> {
        let tests = ignored(text, &code::blank(text));
        tests.into_iter().map(|test| (test.name, test.need)).collect()
    }

    #[test]
    fn a_reason_is_one_of_three() {
        let text = "#[tokio::test]\n#[ignore = \"needs etcd: cargo xtask test\"]\nasync fn any() {}\n\
            #[ignore = \"needs a real etcd: three members\"]\n#[test]\nfn real() {}\n\
            #[ignore = \"entry of child processes\"]\nfn entry() {}\n\
            #[ignore = \"needs a real etcd: \"]\nfn why() {}\n#[ignore]\nfn mute() {}\n#[ignore = \"slow\"]\nfn slow() {}\n\
            // #[ignore = \"needs luck\"]\nfn b() { \"#[ignore]\" }\n";
        let expected = [
            ("any", Some(Need::AnyEtcd)),
            ("real", Some(Need::RealEtcd("three members".to_owned()))),
            ("entry", Some(Need::Nothing)),
            ("why", None),
            ("mute", None),
            ("slow", None),
        ];
        assert_eq!(read(text), expected.map(|(name, need)| (name.to_owned(), need)));
    }

    #[test]
    fn a_test_in_a_module_is_not_at_the_top() {
        let text = "#[ignore]\nfn a() {}\nmod m {\n    #[ignore]\n    fn b() {}\n}\n";
        let at_top: Vec<bool> = ignored(text, text).iter().map(|test| test.at_top).collect();
        assert_eq!(at_top, [true, false]);
    }

    #[test]
    fn what_needs_a_real_etcd_is_named_with_its_binary_and_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("faults.rs");
        let text = "#[ignore = \"needs a real etcd: TLS\"]\nfn a() {}\n\
            #[ignore = \"needs etcd: cargo xtask test\"]\nfn b() {}\n";
        fs::write(&source, text).unwrap();
        let target = Target { name: "faults".to_owned(), kind: "test".to_owned(), source };
        let package = Package { name: "p".to_owned(), targets: vec![target] };
        let left_out = LeftOut {
            package: "p".to_owned(),
            binary: "faults".to_owned(),
            name: "a".to_owned(),
            why: "TLS".to_owned(),
        };
        assert_eq!(need_a_real_etcd(&[package]).unwrap(), [left_out]);
    }

    #[test]
    fn a_test_binary_of_several_files_has_modules() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::create_dir(file("deep")).unwrap();
        for name in ["main.rs", "watches.rs", "deep/mod.rs", "deep/more.rs", "notes.md"] {
            fs::write(file(name), "").unwrap();
        }
        let modules = |first: &str| -> Vec<(String, String)> {
            let found = sources(&file(first)).unwrap().into_iter();
            let name = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
            found.map(|(path, module)| (name(path), module)).collect()
        };
        let expected = [
            ("deep/mod.rs", "deep::"),
            ("deep/more.rs", "deep::more::"),
            ("main.rs", ""),
            ("watches.rs", "watches::"),
        ];
        assert_eq!(modules("main.rs"), expected.map(|(name, module)| (name.to_owned(), module.to_owned())));
        assert_eq!(modules("watches.rs"), [("watches.rs".to_owned(), String::new())]);
    }

    /// `cargo test` leaves tests out by name in all binaries alike, and by a part of the name when a filter is given.
    #[test]
    fn no_name_that_may_be_left_out_is_part_of_the_name_of_a_test_that_stays() {
        let packages = workspace::packages().unwrap();
        let left_out = need_a_real_etcd(&packages).unwrap();
        assert!(!left_out.is_empty());
        let mut names = 0;
        for target in packages.iter().flat_map(|package| &package.targets) {
            for (file, module) in sources(&target.source).unwrap() {
                let code = code::blank(&fs::read_to_string(&file).unwrap());
                let functions = code::names(&code).filter(|(_, name, _)| *name == "fn");
                for (_, function, _) in functions.filter_map(|(_, _, after)| code::names(after).next()) {
                    names += 1;
                    let name = format!("{module}{function}");
                    let hit = left_out.iter().find(|test| {
                        name.contains(&test.name) && (&test.binary, &test.name) != (&target.name, &name)
                    });
                    assert!(hit.is_none(), "{hit:?} is part of {name} in {}", file.display());
                }
            }
        }
        assert!(names > 300, "{names}");
    }
}
