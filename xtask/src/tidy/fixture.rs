//! A small workspace in which nothing is wrong, for tests that break one thing in it.

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::text;
use super::tree::Tree;

const ROOT: &str = r#"
[workspace]
resolver = "3"
members = ["crates/*", "examples", "xtask"]
[workspace.package]
version = "0.1.0"
rust-version = "1.88"
license = "MIT"
[workspace.dependencies]
sereno-core = { path = "crates/core", version = "0.1.0" }
sereno-counter = { path = "crates/counter", version = "0.1.0" }
sereno-pipes = { path = "crates/pipes", version = "0.1.0" }
sereno-sp = { path = "crates/sp", version = "0.1.0" }
sereno-testkit = { path = "crates/testkit" }
[workspace.lints]
"#;
const README: &str = "# Sereno\n\n| crate | for |\n|---|---|\n| `sereno-counter` | counting |\n\
    | [`sereno-pipes`](crates/pipes) | piping |\n\nNeeds Rust 1.88 or later.\n";
const RECIPE_README: &str = "# A recipe\n\n## Example\n```rust,no_run\n## not a heading\n```\n\
    ## Guarantees\n## Keys\n## Options\n## Cost\n### In figures\n## See also\n";
const TITLE_PAGE: &str = "#![doc = include_str!(\"../README.md\")]\n\nmod handle;\npub use handle::Handle;\n";
const HANDLE: &str = r#"//! Says `sleep`, SystemTime and `loop { retry() }`, which are words, not deeds.
/// ```no_run
/// ```
pub struct Handle;
impl Drop for Handle {
    fn drop(&mut self) {
        let _ = ("sleep(1) unbounded_channel() tonic todo!()", 'a');
        for _ in 0..3 { self.step(); }
    }
}
impl Retry for Handle { fn is_retryable(&self) -> bool { self.attempts > 1 } }
"#;

fn manifest(name: &str, rest: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\ndescription = \"Something\"\nversion.workspace = true\n\
         license.workspace = true\nrust-version.workspace = true\n{rest}\n[lints]\nworkspace = true\n"
    )
}

pub(super) fn published(name: &str, dependencies: &str) -> String {
    let fields = "keywords = [\"etcd\"]\ncategories = [\"concurrency\"]\nreadme = \"README.md\"\n";
    manifest(name, &format!("{fields}{dependencies}"))
}

/// A workspace in which nothing is wrong.
pub(super) struct Workspace(BTreeMap<String, String>);

impl Workspace {
    pub(super) fn clean() -> Self {
        let mut workspace = Self(BTreeMap::new());
        let on_core = "[dependencies]\nsereno-core.workspace = true\n[dev-dependencies]\nsereno-testkit.workspace = true";
        let on_both = "[dependencies]\nsereno-core.workspace = true\nsereno-sp.workspace = true";
        let for_tests = "[dev-dependencies]\nsereno-testkit.workspace = true";
        for (path, text) in [
            ("Cargo.toml", ROOT.to_owned()),
            ("Cargo.lock", String::new()),
            ("README.md", README.to_owned()),
            ("LICENSE", String::new()),
            (".gitignore", String::new()),
            ("target/debug/anything", String::new()),
            ("crates/core/Cargo.toml", published("sereno-core", for_tests)),
            ("crates/core/src/lib.rs", "fn again() { loop { retry(); sleep(1); tonic::x() } }\n".to_owned()),
            ("crates/sp/Cargo.toml", published("sereno-sp", "")),
            ("crates/sp/src/lib.rs", String::new()),
            ("crates/testkit/Cargo.toml", manifest("sereno-testkit", "publish = false")),
            ("crates/testkit/src/lib.rs", "use etcd_client::Client;\n".to_owned()),
            ("crates/counter/Cargo.toml", published("sereno-counter", on_core)),
            ("crates/pipes/Cargo.toml", published("sereno-pipes", on_both)),
            ("examples/Cargo.toml", manifest("sereno-examples", "publish = false")),
            ("examples/src/lib.rs", String::new()),
            ("xtask/Cargo.toml", manifest("xtask", "publish = false")),
            ("xtask/src/main.rs", "fn main() {}\n".to_owned()),
        ] {
            workspace.put(path, &text);
        }
        for recipe in ["counter", "pipes"] {
            for (path, text) in [
                ("README.md", RECIPE_README),
                ("src/lib.rs", TITLE_PAGE),
                ("src/handle.rs", HANDLE),
                ("src/keys.rs", ""),
                ("src/error.rs", ""),
                ("tests/basic.rs", "#[ignore = \"needs a real etcd: TLS\"]\nfn a() { sleep(1); }\n"),
                ("tests/contention.rs", ""),
                ("tests/faults.rs", ""),
            ] {
                workspace.put(&format!("crates/{recipe}/{path}"), text);
            }
        }
        workspace
    }

    pub(super) fn put(&mut self, path: &str, text: &str) -> &mut Self {
        self.0.insert(path.to_owned(), text.to_owned());
        self
    }

    pub(super) fn remove(&mut self, path: &str) -> &mut Self {
        self.0.remove(path).expect("there is such a file");
        self
    }

    pub(super) fn append(&mut self, path: &str, text: &str) -> &mut Self {
        *self.0.get_mut(path).expect("there is such a file") += text;
        self
    }

    pub(super) fn replace(&mut self, path: &str, from: &str, to: &str) -> &mut Self {
        let text = self.0.get_mut(path).expect("there is such a file");
        assert!(text.contains(from), "{path} does not contain {from}");
        *text = text.replacen(from, to, 1);
        self
    }

    pub(super) fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in &self.0 {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    pub(super) fn findings(&self) -> Vec<String> {
        let mut findings = text(&Tree::read(self.write().path()).unwrap());
        findings.sort();
        findings.iter().map(ToString::to_string).collect()
    }

    /// Exactly these, each given by how it begins.
    pub(super) fn finds(&self, expected: &[&str]) {
        let found = self.findings();
        let matches = found.iter().zip(expected).all(|(found, start)| found.starts_with(start));
        assert!(found.len() == expected.len() && matches, "found {found:#?}\nexpected {expected:#?}");
    }
}
