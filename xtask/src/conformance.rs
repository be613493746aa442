//! docs/conformance.md: which documented rules kernel-host keeps, by tests that ran.
//!
//! The tests say it themselves (`conforms!` in crates/kernel-host): each run of them writes what it showed into a
//! folder, and this module turns that into the page. `cargo xtask test` compares, so that nobody overlooks an old page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::{self, Workspace};

const PAGE: &str = "docs/conformance.md";

/// What one test showed: a line of the files that tests write.
#[derive(serde::Deserialize)]
struct Shown {
    page: String,
    rule: String,
    test: String,
    kept: bool,
}

/// A documented rule and the tests that show it.
#[derive(Default)]
struct Rule {
    tests: BTreeSet<String>,
    broken: bool,
}

/// Rules by documentation page, then by their text.
type Pages = BTreeMap<String, BTreeMap<String, Rule>>;

/// The folder that tests write to, emptied.
pub(crate) struct Collection(PathBuf);

impl Collection {
    /// Makes room for what the next run of the tests shows.
    pub(crate) fn begin(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.generated("conformance");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Tells the tests that `command` runs where to write.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("KERNEL_HOST_CONFORMANCE", &self.0);
    }

    /// Compares the page with what the tests showed.
    pub(crate) fn compare(&self, workspace: &Workspace) -> Result<()> {
        let shown = self.read()?;
        let page = workspace::read_text(&workspace.root.join(PAGE)).unwrap_or_default();
        if page == render(&shown) {
            return Ok(());
        }
        bail!("{PAGE} does not say what the tests show; run `cargo xtask conformance` and commit the page")
    }

    fn read(&self) -> Result<Pages> {
        let mut pages = Pages::new();
        for entry in fs::read_dir(&self.0).with_context(|| format!("cannot list {}", self.0.display()))? {
            let file = entry?.path();
            for line in workspace::read_text(&file)?.lines() {
                let shown: Shown =
                    serde_json::from_str(line).with_context(|| format!("{}: `{line}`", file.display()))?;
                // The module that collects tests itself with a page that is none.
                if !shown.page.contains('/') {
                    continue;
                }
                let rule = pages.entry(shown.page).or_default().entry(shown.rule).or_default();
                rule.tests.insert(shown.test);
                rule.broken |= !shown.kept;
            }
        }
        Ok(pages)
    }
}

/// Runs the tests of kernel-host and writes the page.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let collection = Collection::begin(workspace)?;
    let mut command = process::cargo(workspace);
    // Of all packages: for one alone cargo would choose other features, and build everything again.
    command.args(["test", "--locked", "--profile", "host", "--lib"]);
    collection.tell(&mut command);
    process::run(&mut command).context("the page is not written while a test fails")?;
    let pages = collection.read()?;
    workspace::write_atomically(&workspace.root.join(PAGE), render(&pages).as_bytes())?;
    println!("{PAGE}: {} rules of {} pages", count(&pages), pages.len());
    Ok(())
}

fn count(pages: &Pages) -> usize {
    pages.values().map(BTreeMap::len).sum()
}

fn render(pages: &Pages) -> String {
    let mut text = format!(
        "# Which documented rules kernel-host keeps\n\n\
         Made by `cargo xtask conformance` from tests that ran; `cargo xtask test` says when it is out of date. A rule is one\n\
         sentence, in our words, of the page it stands under. The tests are in `crates/kernel-host/src`, by path.\n\n\
         {} rules of {} pages.\n",
        count(pages),
        pages.len()
    );
    for (title, belongs) in SECTIONS {
        let pages: Vec<_> = pages.iter().filter(|(page, _)| section(page) == Some(*belongs)).collect();
        if pages.is_empty() {
            continue;
        }
        let rules: usize = pages.iter().map(|(_, rules)| rules.len()).sum();
        let _infallible = write!(text, "\n## {title} ({rules})\n");
        for (page, rules) in pages {
            let _infallible = write!(text, "\n### {}\n\n| rule | test | result |\n| --- | --- | --- |\n", link(page));
            for (rule, Rule { tests, broken }) in rules {
                let result = if *broken { "**broken**" } else { "kept" };
                let tests: Vec<_> = tests.iter().map(|test| format!("`{}`", short(test))).collect();
                let _infallible = writeln!(text, "| {} | {} | {result} |", escape(rule), tests.join("<br>"));
            }
        }
    }
    text
}

/// What a page's first folder stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    FltMgr,
    Nt,
    Ndis,
    User,
    Guide,
}

const SECTIONS: &[(&str, Section)] = &[
    ("Filter Manager", Section::FltMgr),
    ("NT kernel", Section::Nt),
    ("NDIS", Section::Ndis),
    ("Programs: fltlib", Section::User),
    ("Guides", Section::Guide),
];

fn section(page: &str) -> Option<Section> {
    Some(match page.split_once('/')?.0 {
        "fltkernel" => Section::FltMgr,
        "ndis" | "oidrequest" | "nblapi" | "ntddndis" | "objectheader" => Section::Ndis,
        folder if folder.starts_with("docs:") => Section::Guide,
        folder if folder.starts_with("sdk:") || folder == "fltuserstructures" => Section::User,
        _ => Section::Nt,
    })
}

/// The page's name with its address on the web.
fn link(page: &str) -> String {
    let (base, path) = if let Some(path) = page.strip_prefix("docs:") {
        ("https://learn.microsoft.com/windows-hardware/drivers/", path)
    } else if let Some(path) = page.strip_prefix("sdk:") {
        ("https://learn.microsoft.com/windows/win32/api/", path)
    } else {
        ("https://learn.microsoft.com/windows-hardware/drivers/ddi/", page)
    };
    let path = path.strip_suffix(".md").unwrap_or(path);
    let name = path.rsplit('/').next().unwrap_or(path);
    format!("[{name}]({base}{path})")
}

fn short(test: &str) -> &str {
    test.strip_prefix("kernel_host::").unwrap_or(test)
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_with_one_broken_test_is_broken_and_names_all_its_tests() {
        let mut pages = Pages::new();
        let rule = Rule { tests: ["kernel_host::flt::b".into(), "kernel_host::flt::a".into()].into(), broken: true };
        pages.entry("fltkernel/nf-fltkernel-fltclose.md".into()).or_default().insert("One | two.".into(), rule);
        let text = render(&pages);
        assert!(text.contains("1 rules of 1 pages"), "{text}");
        assert!(text.contains("## Filter Manager (1)"), "{text}");
        assert!(
            text.contains("drivers/ddi/fltkernel/nf-fltkernel-fltclose)\n"),
            "the heading leads to the documentation: {text}"
        );
        assert!(text.contains("| One \\| two. | `flt::a`<br>`flt::b` | **broken** |"), "{text}");
    }

    #[test]
    fn every_kind_of_page_has_a_section() {
        for page in ["fltkernel/a.md", "wdm/a.md", "ndis/a.md", "docs:ifs/a.md", "sdk:fltuser/a.md"] {
            let mut pages = Pages::new();
            pages.entry(page.into()).or_default().insert("R.".into(), Rule::default());
            assert!(render(&pages).contains("### [a]"), "{page}");
        }
    }
}
