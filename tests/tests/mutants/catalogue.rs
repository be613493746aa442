//! Every mutant in the sources has a test, and every test a mutant.

use std::collections::BTreeSet;
use std::path::Path;

use crate::family::Mutant;
use crate::{
    crash, exceptions, execution, flt_contexts, flt_io, flt_names, flt_ports, flt_registration, irps, irql, leftovers,
    locks, ndis_miniport, ndis_protocol, objects, paging, pool, resources,
};

/// All families.
const FAMILIES: &[&[Mutant]] = &[
    crash::MUTANTS,
    exceptions::MUTANTS,
    execution::MUTANTS,
    flt_contexts::MUTANTS,
    flt_io::MUTANTS,
    flt_names::MUTANTS,
    flt_ports::MUTANTS,
    flt_registration::MUTANTS,
    irps::MUTANTS,
    irql::MUTANTS,
    leftovers::MUTANTS,
    locks::MUTANTS,
    ndis_miniport::MUTANTS,
    ndis_protocol::MUTANTS,
    objects::MUTANTS,
    paging::MUTANTS,
    pool::MUTANTS,
    resources::MUTANTS,
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
