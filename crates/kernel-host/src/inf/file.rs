//! The text of an INF file: sections, lines, strings. Page: "INF file sections and directives", general syntax rules.

use std::collections::HashMap;

/// A parsed INF.
#[derive(Debug, Default)]
pub struct Inf {
    sections: HashMap<String, Vec<Line>>,
    strings: HashMap<String, String>,
}

/// `key = value, value, ...`; a line without `=` has no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: Option<String>,
    pub(super) values: Vec<String>,
}

/// Why a package cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InfError {
    /// A line that is neither a section nor belongs to one.
    #[error("line {0} stands outside every section: an INF begins with a section such as [Version]")]
    OutsideSections(usize),
    /// A quoted string that does not end on its line.
    #[error("line {0} has a quotation mark without its partner")]
    OpenQuote(usize),
    /// Something a package must have.
    #[error("the INF has no {0}: add it, as the page \"Creating an INF file\" shows")]
    Missing(String),
    /// An entry that cannot be understood.
    #[error("[{section}] has an entry that cannot be used: {entry}")]
    BadEntry {
        /// The section.
        section: String,
        /// The entry as it stands there.
        entry: String,
    },
}

impl Inf {
    /// Parses the text of an INF, or of an INX.
    ///
    /// A driver project stamps its INX: `$ARCH$` becomes the architecture, which is x64's here. The other stamps (date, version) are
    /// of no consequence. Page: "Stampinf command options".
    ///
    /// # Errors
    /// [`InfError::OutsideSections`] and [`InfError::OpenQuote`] name the line.
    pub fn parse(text: &str) -> Result<Self, InfError> {
        let text = text.replace("$ARCH$", "amd64");
        let mut inf = Self::default();
        let mut section: Option<String> = None;
        let mut pending = String::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = without_comment(line);
            // A backslash at the end joins the next line on.
            if let Some(start) = line.trim_end().strip_suffix('\\').filter(|_| !is_path_end(line)) {
                pending.push_str(start);
                continue;
            }
            let line = std::mem::take(&mut pending) + line;
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let name = name.trim().to_lowercase();
                inf.sections.entry(name.clone()).or_default();
                section = Some(name);
            } else if !line.is_empty() {
                let name = section.as_ref().ok_or(InfError::OutsideSections(index + 1))?;
                let parsed = split_line(line).ok_or(InfError::OpenQuote(index + 1))?;
                inf.sections.entry(name.clone()).or_default().push(parsed);
            }
        }
        for line in inf.sections.get("strings").into_iter().flatten() {
            if let (Some(key), Some(value)) = (&line.key, line.values.first()) {
                inf.strings.insert(key.to_lowercase(), value.clone());
            }
        }
        Ok(inf)
    }

    /// Whether there is a section of this name.
    pub(super) fn has(&self, section: &str) -> bool {
        self.sections.contains_key(&section.to_lowercase())
    }

    /// The names of all sections, in lower case.
    pub(super) fn section_names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// The lines of a section with all `%strings%` put in; none where there is no such section.
    pub(super) fn lines(&self, section: &str) -> impl Iterator<Item = Line> + '_ {
        let lines = self.sections.get(&section.to_lowercase());
        lines.into_iter().flatten().map(|line| Line {
            key: line.key.as_ref().map(|key| self.expand(key)),
            values: line.values.iter().map(|value| self.expand(value)).collect(),
        })
    }

    /// The values of the first line with this key.
    pub(super) fn entry(&self, section: &str, key: &str) -> Option<Vec<String>> {
        self.lines(section)
            .find(|line| line.key.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(key)))
            .map(|line| line.values)
    }

    /// All values of all lines with this key: directives such as `AddReg` may be repeated.
    pub(super) fn entries(&self, section: &str, key: &str) -> Vec<Vec<String>> {
        self.lines(section)
            .filter(|line| line.key.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(key)))
            .map(|line| line.values)
            .collect()
    }

    /// Replaces `%name%` by its string or, for a number, by the folder that the DIRID stands for. `%%` is a percent sign.
    fn expand(&self, text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            result.push_str(before);
            let Some((name, behind)) = after.split_once('%') else {
                result.push('%');
                rest = after;
                continue;
            };
            match (name, self.strings.get(&name.to_lowercase()), folder(name)) {
                ("", ..) => result.push('%'),
                (_, Some(string), _) => result.push_str(string),
                (_, None, Some(folder)) => result.push_str(folder),
                (_, None, None) => {
                    result.push('%');
                    result.push_str(name);
                    result.push('%');
                }
            }
            rest = behind;
        }
        result + rest
    }
}

/// The folder of a DIRID. Page: "Using DIRIDs".
pub(super) fn folder(dirid: &str) -> Option<&'static str> {
    match dirid {
        "10" => Some(r"\SystemRoot"),
        "11" => Some(r"\SystemRoot\System32"),
        "12" => Some(r"\SystemRoot\System32\drivers"),
        // The driver store: packages are not copied here, so the folder stands for wherever the file lies.
        "13" => Some(r"\SystemRoot\System32\DriverStore\FileRepository"),
        _ => None,
    }
}

/// A backslash that ends a quoted path is part of it.
fn is_path_end(line: &str) -> bool {
    line.matches('"').count() % 2 == 1
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (index, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ';' if !quoted => return &line[..index],
            _ => {}
        }
    }
    line
}

/// Splits at the first `=` and at commas outside quotes; `None` when a quote is left open.
fn split_line(line: &str) -> Option<Line> {
    let (mut key, mut values, mut current) = (None, Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    // Only unquoted text is trimmed, so that "  x" keeps its spaces: `kept` is how much of `current` was quoted.
    let mut kept = 0;
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                current.push('"');
                kept = current.len();
            }
            '"' => {
                quoted = !quoted;
                kept = kept.max(if quoted { 0 } else { current.len() });
            }
            _ if quoted => current.push(character),
            '=' if key.is_none() && values.is_empty() => key = Some(finish(&mut current, &mut kept)),
            ',' => values.push(finish(&mut current, &mut kept)),
            ' ' | '\t' if current.is_empty() => {}
            _ => current.push(character),
        }
    }
    values.push(finish(&mut current, &mut kept));
    (!quoted).then_some(Line { key, values })
}

fn finish(current: &mut String, kept: &mut usize) -> String {
    let trimmed = current.trim_end().len().max(*kept);
    current.truncate(trimmed);
    *kept = 0;
    std::mem::take(current)
}

#[cfg(test)]
mod tests {
    use super::{Inf, InfError};
    use crate::conformance::conforms;

    #[test]
    fn values_are_split_trimmed_unquoted_and_expanded() {
        let inf = Inf::parse(
            "; comment\r\n[A]\r\nKey = one, \"two, still two\" , \" kept \",%Name%,50%%,%12%\\x.sys ; more\n\
             [Strings]\nname = \"a \"\"quoted\"\" word\"\n",
        )
        .unwrap();
        let expected =
            ["one", "two, still two", " kept ", "a \"quoted\" word", "50%", r"\SystemRoot\System32\drivers\x.sys"];
        assert_eq!(inf.entry("a", "KEY").unwrap(), expected);
    }

    #[test]
    fn an_unstamped_file_is_stamped_for_x64() {
        conforms!(
            "docs:devtest/stampinf-command-options.md",
            "$ARCH$ stands for the architecture that decorates a section"
        );
        let inf = Inf::parse("[DefaultInstall.NT$ARCH$.10.0...25952.Services]\nAddService = a\n").unwrap();
        assert!(inf.has("DefaultInstall.NTamd64.10.0...25952.Services"));
    }

    #[test]
    fn sections_of_one_name_are_one_and_lines_can_be_continued() {
        let inf = Inf::parse("[A]\nx = 1,\\\n 2\n[B]\n[a]\ny = 3\n").unwrap();
        assert_eq!(inf.entry("A", "x").unwrap(), ["1", "2"]);
        assert_eq!(inf.entry("A", "y").unwrap(), ["3"]);
        assert!(inf.has("b") && !inf.has("c"));
    }

    #[test]
    fn a_line_without_equals_sign_has_values_only() {
        let inf = Inf::parse("[Reg]\nHKR,,Name,0x00010001,5\n").unwrap();
        let line = inf.lines("reg").next().unwrap();
        assert_eq!((line.key, line.values.len()), (None, 5));
    }

    #[test]
    fn broken_lines_are_named() {
        assert_eq!(Inf::parse("\nx = 1").unwrap_err(), InfError::OutsideSections(2));
        assert_eq!(Inf::parse("[A]\nx = \"open").unwrap_err(), InfError::OpenQuote(2));
    }
}
