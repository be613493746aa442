//! What there is to build: one image per source, and one more per mutant in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::read_text;

/// A driver to be built.
pub(super) struct Image {
    /// File name without extension: the source's, and for a mutant `-name` behind it.
    pub(super) name: String,
    /// The only source file.
    pub(super) source: PathBuf,
    /// What is in it.
    pub(super) text: String,
    /// The macro that puts the mistake in; none for a correct driver.
    pub(super) mutant: Option<String>,
}

/// A preprocessor line that begins a mutant names it after this.
const MUTANT: &str = "MUTANT_";

/// All images of the folder, in the order of their names.
pub(super) fn images(folder: &Path) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for source in files(folder, "c")? {
        let text = read_text(&source)?;
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for mutant in mutants(&text) {
            let name = format!("{stem}-{}", mutant.to_lowercase().replace('_', "-"));
            images.push(Image { name, source: source.clone(), text: text.clone(), mutant: Some(mutant) });
        }
        images.push(Image { name: stem, source, text, mutant: None });
    }
    images.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(images)
}

/// Files with this extension in the subfolders of `folder`, one level deep.
pub(super) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut found = Vec::new();
    for folder in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        found.extend(list(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|is| is == extension)));
    }
    found.sort();
    Ok(found)
}

/// Names of the mutants in a source, each once, without the prefix.
fn mutants(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .lines()
        .filter(|line| line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter_map(|word| word.strip_prefix(MUTANT).map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_is_found_once_and_only_in_preprocessor_lines() {
        let text = "/* MUTANT_TALK */\n#ifdef MUTANT_LEAK\n#else\n#endif\n#if !defined(MUTANT_LEAK) && !defined(MUTANT_A_B)\n#endif\n";
        assert_eq!(mutants(text), ["A_B", "LEAK"]);
    }
}
