//! Every check is proven by a small workspace that is clean until one thing in it is broken.

use super::fixture::{Workspace, published};
use super::versions;
use crate::workspace;

const LIB: &str = "crates/counter/src/lib.rs";
const HANDLE_FILE: &str = "crates/counter/src/handle.rs";
const MANIFEST: &str = "crates/counter/Cargo.toml";

#[test]
fn a_clean_workspace_has_no_findings() {
    Workspace::clean().finds(&[]);
}

#[test]
fn the_top_level_is_exactly_as_agreed() {
    Workspace::clean().put("notes.md", "").finds(&["notes.md:1: layout: does not belong"]);
    Workspace::clean().put("docs/a.md", "").finds(&["docs:1: layout: does not belong"]);
    Workspace::clean().remove("LICENSE").finds(&["LICENSE:1: layout: is missing"]);
}

#[test]
fn a_recipe_stands_on_core_alone() {
    for (package, table) in [
        ("sereno-pipes", "[build-dependencies]"),
        ("sereno-sp", "[target.'cfg(unix)'.dependencies]"),
        ("sereno-pipes", "[target.'cfg(unix)'.dev-dependencies]"),
    ] {
        let dependency = format!("{table}\n{package}.workspace = true\n");
        let expected = format!("{MANIFEST}:17: layers: must not depend on {package}");
        Workspace::clean().append(MANIFEST, &dependency).finds(&[&expected]);
    }
    let renamed = "[build-dependencies]\nother = { package = \"sereno-pipes\", path = \"../pipes\" }\n";
    Workspace::clean()
        .append(MANIFEST, renamed)
        .finds(&["crates/counter/Cargo.toml:1: layers: must not depend"]);
}

#[test]
fn the_harness_is_for_tests_and_the_foundations_stand_on_nothing_of_ours() {
    let harness = "[build-dependencies]\nsereno-testkit.workspace = true\n";
    Workspace::clean().append("crates/sp/Cargo.toml", harness).finds(&["crates/sp/Cargo.toml:14: layers: "]);
    let recipe = "[build-dependencies]\nsereno-counter.workspace = true\n";
    Workspace::clean()
        .append("crates/core/Cargo.toml", recipe)
        .finds(&["crates/core/Cargo.toml:15: layers: "]);
    Workspace::clean()
        .append("crates/testkit/Cargo.toml", recipe)
        .finds(&["crates/testkit/Cargo.toml:11: layers: "]);
    Workspace::clean().append("examples/Cargo.toml", recipe).finds(&[]);
    let embed = "crates/embed/Cargo.toml";
    let with =
        |dependency: &str| Workspace::clean().put(embed, &published("sereno-embed", dependency)).findings();
    assert_eq!(with("[dev-dependencies]\nsereno-counter.workspace = true"), Vec::<String>::new());
    assert_eq!(with("[dependencies]\nsereno-counter.workspace = true").len(), 1);
}

#[test]
fn a_recipe_names_no_other() {
    Workspace::clean()
        .append(LIB, "use sereno_pipes::Pipe;\nuse sereno_core::Client;\nuse sereno_counter::Counter;\n")
        .finds(&["crates/counter/src/lib.rs:5: layers: must not name `sereno_pipes`"]);
}

#[test]
fn only_the_core_names_the_etcd_client() {
    for package in ["etcd-client", "tonic", "tonic-prost"] {
        let dependency = format!("[build-dependencies]\n{package} = \"1\"\n");
        let expected = format!("{MANIFEST}:17: client: {package}");
        Workspace::clean().append(MANIFEST, &dependency).finds(&[&expected]);
    }
    for (path, line) in [(LIB, 5), ("crates/counter/tests/basic.rs", 3), ("examples/src/lib.rs", 1)] {
        for name in ["etcd_client", "tonic"] {
            let expected = format!("{path}:{line}: client: `{name}`");
            Workspace::clean().append(path, &format!("use {name}::Code;\n")).finds(&[&expected]);
        }
    }
    Workspace::clean()
        .append("xtask/src/main.rs", "use etcd_client::Client;\n")
        .finds(&["xtask/src/main.rs:2: client: `etcd_client`"]);
    Workspace::clean().put("xtask/src/bench/link.rs", "use etcd_client::Client;\n").finds(&[]);
}

#[test]
fn the_channel_of_discovery_may_be_one_of_tonics() {
    let manifest = "crates/discovery/Cargo.toml";
    let with = |dependency: &str| {
        let text = published("sereno-discovery", &format!("[dependencies]\n{dependency}"));
        let findings = Workspace::clean().put(manifest, &text).findings();
        findings.into_iter().filter(|finding| finding.contains(": client: ")).count()
    };
    assert_eq!(with("tonic = { workspace = true, optional = true }"), 0);
    assert_eq!(with("tonic.workspace = true"), 1);
    assert_eq!(with("tonic-prost = { workspace = true, optional = true }"), 1);
    assert_eq!(with("etcd-client = { workspace = true, optional = true }"), 1);
    let named = |path: &str, name: &str| {
        let findings = Workspace::clean().put(path, &format!("use {name}::Code;\n")).findings();
        findings.into_iter().filter(|finding| finding.contains(": client: ")).count()
    };
    for path in ["crates/discovery/src/channel.rs", "crates/discovery/tests/tonic.rs"] {
        assert_eq!((named(path, "tonic"), named(path, "etcd_client")), (0, 1), "{path}");
    }
    for path in
        ["crates/discovery/src/view.rs", "crates/discovery/tests/basic.rs", "crates/counter/src/channel.rs"]
    {
        assert_eq!(named(path, "tonic"), 1, "{path}");
    }
}

#[test]
fn a_crate_may_stand_on_itself_for_its_tests() {
    let with = |table: &str| {
        let text = format!("[{table}]\nsereno-counter = {{ path = \".\", features = [\"all\"] }}\n");
        Workspace::clean().append(MANIFEST, &text).findings().len()
    };
    assert_eq!(with("target.'cfg(unix)'.dev-dependencies"), 0);
    assert_eq!(with("build-dependencies"), 1);
}

#[test]
fn a_recipe_does_not_wait_by_itself() {
    for call in ["tokio::time::sleep(t)", "sleep_until(t)", "time::interval (t)", "interval_at(a, t)"] {
        let text = format!("fn a() {{ {call}; }}\n");
        Workspace::clean().append(HANDLE_FILE, &text).finds(&["crates/counter/src/handle.rs:12: time: "]);
    }
}

#[test]
fn the_wall_clock_is_for_payloads_that_say_so() {
    let text = "use std::time::SystemTime;\n";
    Workspace::clean()
        .append(HANDLE_FILE, text)
        .finds(&["crates/counter/src/handle.rs:12: time: the wall clock"]);
    let text = "// tidy: payload timestamp\nuse std::time::SystemTime;\n";
    Workspace::clean().append(HANDLE_FILE, text).finds(&[]);
}

#[test]
fn a_recipe_has_no_retry_loop() {
    for text in [
        "fn a() { loop { if error.is_retryable() { continue } } }\n",
        "fn a() { while attempts < 3 { b(); } }\n",
        "fn a() { for _ in 0..MAX_RETRIES { b(); } }\n",
        "fn a() { while b() { if c { Backoff::new() } } }\n",
    ] {
        Workspace::clean().append(HANDLE_FILE, text).finds(&["crates/counter/src/handle.rs:12: time: "]);
    }
    let outside = "fn a() { while b() { c(); } retry(); }\n";
    Workspace::clean().append(HANDLE_FILE, outside).finds(&[]);
}

#[test]
fn every_channel_has_a_bound() {
    for text in [
        "mpsc::unbounded_channel()",
        "futures::channel::mpsc::unbounded()",
        "mpsc::channel()",
        "std::sync::mpsc::channel::<Vec<u8>>()",
    ] {
        for (path, line) in
            [("crates/core/src/lib.rs", 2), ("xtask/src/main.rs", 2), ("crates/counter/tests/faults.rs", 1)]
        {
            let expected = format!("{path}:{line}: queues: ");
            Workspace::clean().append(path, &format!("fn b() {{ {text}; }}\n")).finds(&[&expected]);
        }
    }
    let bounded =
        "fn b() { mpsc::channel(8); mpsc::channel::<u8>(8); oneshot::channel(); Bound::Unbounded; }\n";
    Workspace::clean().append("crates/core/src/lib.rs", bounded).finds(&[]);
}

#[test]
fn every_recipe_has_the_same_files() {
    for file in [
        "src/keys.rs",
        "src/error.rs",
        "tests/basic.rs",
        "tests/contention.rs",
        "tests/faults.rs",
        "README.md",
        "src/lib.rs",
    ] {
        let path = format!("crates/counter/{file}");
        Workspace::clean().remove(&path).finds(&[&format!("{path}:1: skeleton: is missing")]);
    }
    Workspace::clean()
        .remove("crates/counter/tests/basic.rs")
        .put("crates/counter/tests/basic/main.rs", "")
        .finds(&[]);
    Workspace::clean()
        .remove(HANDLE_FILE)
        .finds(&["crates/counter/src:1: skeleton: has no file for the handle"]);
    Workspace::clean()
        .remove(HANDLE_FILE)
        .put("crates/counter/src/worker.rs", "")
        .finds(&["crates/counter/src:1: skeleton"]);
}

#[test]
fn the_title_page_is_the_readme_and_nothing_else() {
    Workspace::clean()
        .replace(LIB, "#![doc = include_str!(\"../README.md\")]", "//! A recipe.")
        .finds(&["crates/counter/src/lib.rs:1: skeleton: does not contain"]);
    for item in ["pub struct A;", "fn a() {}", "const A: u8 = 1;"] {
        Workspace::clean()
            .append(LIB, item)
            .finds(&["crates/counter/src/lib.rs:5: skeleton: is a title page"]);
    }
}

#[test]
fn every_readme_has_the_same_headings_in_the_same_order() {
    let path = "crates/counter/README.md";
    let expected = ["crates/counter/README.md:3: skeleton: has the headings"];
    Workspace::clean().replace(path, "## Cost\n", "").finds(&expected);
    Workspace::clean().append(path, "## More\n").finds(&expected);
    Workspace::clean().replace(path, "## Keys\n## Options\n", "## Options\n## Keys\n").finds(&expected);
}

#[test]
fn every_recipe_has_a_row_in_the_readme() {
    for to in ["| `sereno-counters` | counting |", "`sereno-counter`: counting"] {
        let row = "| `sereno-counter` | counting |";
        Workspace::clean()
            .replace("README.md", row, to)
            .finds(&["README.md:1: skeleton: has no row for sereno-counter"]);
    }
}

#[test]
fn a_long_file_is_a_warning_and_a_longer_one_an_error() {
    let file = |lines: usize| "//\n".repeat(lines);
    Workspace::clean().put("crates/core/src/a.rs", &file(400)).finds(&[]);
    Workspace::clean()
        .put("crates/core/src/a.rs", &file(401))
        .put("crates/core/src/b.rs", &file(501))
        .finds(&["crates/core/src/a.rs:401: length (warning): ", "crates/core/src/b.rs:501: length: "]);
}

#[test]
fn a_manifest_is_complete() {
    for (from, to, line) in [
        ("sereno-counter\"", "counter\"", 2),
        ("description = \"Something\"\n", "", 1),
        ("description = \"Something\"", "description = \"\"", 1),
        ("license.workspace = true", "license = \"MIT\"", 1),
        ("rust-version.workspace = true\n", "", 1),
        ("[lints]\nworkspace = true\n", "", 1),
        ("keywords = [\"etcd\"]", "keywords = []", 7),
        ("keywords = [\"etcd\"]", "keywords = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]", 7),
        ("keywords = [\"etcd\"]", "keywords = [\"abcdefghijklmnopqrstu\"]", 7),
        ("categories = [\"concurrency\"]\n", "", 1),
        ("readme = \"README.md\"\n", "", 1),
    ] {
        let expected = format!("{MANIFEST}:{line}: manifest: ");
        Workspace::clean().replace(MANIFEST, from, to).finds(&[&expected]);
    }
    Workspace::clean()
        .remove("crates/sp/Cargo.toml")
        .finds(&["crates/sp/Cargo.toml:1: manifest: is missing"]);
    Workspace::clean()
        .replace("Cargo.toml", "license = \"MIT\"\n", "")
        .finds(&["Cargo.toml:5: manifest: states no license"]);
    Workspace::clean()
        .replace("Cargo.toml", "crates/core\", version = \"0.1.0\"", "crates/core\"")
        .finds(&["Cargo.toml:10: manifest: sereno-core: needs a version"]);
    Workspace::clean()
        .replace("Cargo.toml", "crates/testkit\"", "crates/testkit\", version = \"0.1.0\"")
        .finds(&["Cargo.toml:14: manifest: sereno-testkit: "]);
}

#[test]
fn an_ignored_test_says_what_it_needs() {
    for reason in ["needs etcd: cargo xtask test", "needs a real etcd: TLS", "entry of child processes"] {
        let text = format!("#[test]\n#[ignore = \"{reason}\"]\nfn a() {{}}\n");
        Workspace::clean().put("crates/counter/tests/faults.rs", &text).finds(&[]);
    }
    for attribute in [
        "#[ignore]",
        "#[ ignore ]",
        "#[ignore = \"\"]",
        "#[ignore = \"slow\"]",
        "#[ignore = \"needs etcd\"]",
        "#[ignore = \"needs a real etcd: \"]",
    ] {
        Workspace::clean()
            .put("crates/counter/tests/faults.rs", &format!("#[test]\n{attribute}\nfn a() {{}}\n"))
            .finds(&["crates/counter/tests/faults.rs:2: honesty: an ignored test"]);
    }
}

#[test]
fn a_test_that_needs_a_real_etcd_can_be_left_out_by_its_name() {
    let test = "#[ignore = \"needs a real etcd: TLS\"]\nfn a() {}\n";
    for (path, text, line) in [
        ("crates/counter/tests/faults.rs", format!("mod m {{\n    {test}}}\n"), 2),
        ("crates/counter/tests/common/mod.rs", test.to_owned(), 1),
        ("crates/core/src/lib.rs", test.to_owned(), 1),
    ] {
        let expected = format!("{path}:{line}: honesty: a test that needs a real etcd stands");
        Workspace::clean().put(path, &text).finds(&[&expected]);
    }
    let (main, beside) =
        ("crates/core/tests/differential/main.rs", "crates/core/tests/differential/leases.rs");
    Workspace::clean().put(main, "mod leases;\n").put(beside, test).finds(&[]);
}

#[test]
fn nothing_is_left_undone() {
    for text in ["fn a() { todo!() }", "fn a() { unimplemented!(\"later\") }", concat!("// FIX", "ME: later")]
    {
        for path in ["crates/core/src/lib.rs", "examples/src/lib.rs"] {
            let mut workspace = Workspace::clean();
            workspace.put(path, text).finds(&[&format!("{path}:1: honesty: ")]);
        }
    }
}

#[test]
fn every_documentation_example_is_compiled() {
    for text in ["/// ```ignore\n/// ```\n", "//! ```rust,ignore\n//! ```\n", "    /// ``` ignore-windows\n"]
    {
        Workspace::clean()
            .put("crates/core/src/lib.rs", text)
            .finds(&["crates/core/src/lib.rs:1: honesty: a code block"]);
    }
    Workspace::clean().append("README.md", "```ignore\n```\n").finds(&["README.md:9: honesty: a code block"]);
}

#[test]
fn the_readme_states_the_version_that_the_workspace_declares() {
    let path = "README.md";
    Workspace::clean()
        .replace(path, "Rust 1.88", "Rust 1.85")
        .finds(&["README.md:8: rust-version: says Rust 1.85"]);
    Workspace::clean()
        .replace(path, "Rust 1.88", "Rust")
        .finds(&["README.md:1: rust-version: does not state"]);
    Workspace::clean()
        .put("crates/core/README.md", "Rust is fine, Rust 1.88.0 too, Rust 1.90 is not.\n")
        .finds(&["crates/core/README.md:1: rust-version: says Rust 1.90"]);
}

#[test]
fn no_locked_dependency_needs_a_newer_rust() {
    let findings = |needed: &str| {
        let mut workspace = Workspace::clean();
        workspace
            .append("crates/sp/Cargo.toml", "[dependencies]\nelsewhere = { path = \"../../.elsewhere\" }\n")
            .replace("Cargo.toml", "resolver = \"3\"\n", "resolver = \"3\"\nexclude = [\".elsewhere\"]\n")
            .put(".elsewhere/src/lib.rs", "")
            .put(
                ".elsewhere/Cargo.toml",
                &format!(
                    "[package]\nname = \"elsewhere\"\nversion = \"1.0.0\"\nrust-version = \"{needed}\"\n"
                ),
            )
            .remove("Cargo.lock");
        let folder = workspace.write();
        let mut cargo = workspace::cargo();
        let lock =
            cargo.args(["generate-lockfile", "--offline", "--quiet"]).current_dir(folder.path()).status();
        assert!(lock.unwrap().success());
        versions::locked(folder.path()).unwrap()
    };
    assert_eq!(findings("1.88"), []);
    assert_eq!(findings("1.88.0"), []);
    for needed in ["1.89", "1.88.1", "2.0"] {
        let found = findings(needed);
        assert!(
            matches!(found.as_slice(), [one] if one.what.contains(&format!("needs Rust {needed}"))),
            "{found:?}"
        );
    }
}
