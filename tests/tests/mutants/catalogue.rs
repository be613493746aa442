//! Every mutant in the sources has a test, every test a mutant, and docs/mutants.md lists them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::family::Mutant;
use crate::{
    crash, exceptions, execution, flt_buffers, flt_contexts, flt_io, flt_names, flt_ports, flt_registration, hangs,
    irps, irql, leftovers, locks, ndis_filter, ndis_miniport, ndis_protocol, objects, paging, pool, resources,
    user_memory,
};

/// All families.
const FAMILIES: &[&[Mutant]] = &[
    crash::MUTANTS,
    exceptions::MUTANTS,
    execution::MUTANTS,
    flt_buffers::MUTANTS,
    flt_contexts::MUTANTS,
    flt_io::MUTANTS,
    flt_names::MUTANTS,
    flt_ports::MUTANTS,
    flt_registration::MUTANTS,
    hangs::MUTANTS,
    irps::MUTANTS,
    irql::MUTANTS,
    leftovers::MUTANTS,
    locks::MUTANTS,
    ndis_filter::MUTANTS,
    ndis_miniport::MUTANTS,
    ndis_protocol::MUTANTS,
    objects::MUTANTS,
    paging::MUTANTS,
    pool::MUTANTS,
    resources::MUTANTS,
    user_memory::MUTANTS,
];

/// `family-name` of each mutant that a source has.
fn in_sources() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/mutants");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let family = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let lines = text.lines().filter(|line| line.trim_start().starts_with('#'));
        let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        for name in words.filter_map(|word| word.strip_prefix("MUTANT_")) {
            found.insert(format!("{family}-{}", name.to_lowercase()));
        }
    }
    found
}

#[test]
fn every_mutant_in_the_sources_has_a_test_and_the_other_way_round() {
    let tested = FAMILIES.iter().copied().flatten().map(|mutant| format!("{}-{}", mutant.family, mutant.name));
    assert_eq!(tested.collect::<BTreeSet<_>>(), in_sources());
}

/// Set to anything, it has the page written instead of compared.
const WRITE: &str = "FWBROKER_WRITE_DOCS";

/// The page: for each rule, the mutants that show it.
fn page() -> String {
    let mut rules: BTreeMap<String, Vec<&Mutant>> = BTreeMap::new();
    let mutants: Vec<&Mutant> = FAMILIES.iter().copied().flatten().collect();
    for mutant in &mutants {
        rules.entry(mutant.caught.rule()).or_default().push(mutant);
    }
    let mut text = format!(
        "# What kernel-host catches: {} mutants\n\n\
         Small drivers in C with one mistake each (`tests/drivers/mutants/`, where `MUTANT_NAME` marks the place), built with clang \
         and MinGW. For each, a\ntest demands the rule, the call and the driver's function; the same driver without the mistake has \
         to pass the same test with nothing\nfound and nothing left. This page is made from the tests: \
         `{WRITE}=1 cargo test -p fwbroker-tests --test mutants catalogue`.\n",
        mutants.len()
    );
    for (rule, mutants) in rules {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {rule}\n\n| driver | mistake | found |\n| --- | --- | --- |\n");
        for mutant in mutants {
            let _ = writeln!(text, "| {} | {} | {} |", mutant.family, mutant.name.replace('_', " "), mutant.caught);
        }
    }
    text
}

#[test]
fn the_page_of_mutants_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mutants.md");
    let expected = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, expected).expect("docs/ can be written");
        return;
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == expected, "docs/mutants.md is stale; set {WRITE} and run this test to write it");
}
