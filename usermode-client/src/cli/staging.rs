//! `fwbctl stage`, `unstage` and `list`, and the digest that staging checks a file against.

use protocol::Phase;
use serde::Serialize;

use super::output::{Output, Progress, Terminal, facts, table};
use super::{Outcome, StageArgs};
use crate::nt_path::shown;
use crate::{Client, Error, FilterLibrary, Hasher, NtPath, Sha256Digest};

#[derive(Serialize)]
pub(super) struct StagedImages {
    images: Vec<StagedImage>,
}

#[derive(Serialize)]
struct StagedImage {
    image_id: u64,
    name: String,
    size: u64,
    sha256: String,
    shared: bool,
    digest: &'static str,
}

/// Stages one file after the other. The first refusal ends it; what was staged before stays and is shown.
pub(super) fn stage(
    library: &mut dyn FilterLibrary,
    args: &StageArgs,
    terminal: &mut Terminal<'_>,
) -> Result<Outcome, Error> {
    if args.digest.sha256.is_some() && args.files.len() > 1 {
        return Err(Error::Usage {
            message: "--sha256 is the digest of one file, but several are given".into(),
            next: "stage them one by one, each with its own digest".into(),
        });
    }
    let mut client = Client::connect(library)?;
    let mut done = StagedImages { images: Vec::new() };
    for file in &args.files {
        match stage_one(&mut client, file, args, terminal) {
            Ok(image) => done.images.push(image),
            Err(error) => return Ok((Box::new(done), Some(error))),
        }
    }
    Ok((Box::new(done), None))
}

fn stage_one(
    client: &mut Client,
    file: &str,
    args: &StageArgs,
    terminal: &mut Terminal<'_>,
) -> Result<StagedImage, Error> {
    let path = NtPath::from_user(file)?;
    let (sha256, digest) = match (args.digest.sha256, args.digest.no_digest) {
        (Some(given), _) => (Some(given), "given"),
        (None, true) => (None, "none"),
        (None, false) => (Some(expected_digest(client, &path, terminal)?), "computed"),
    };
    let deadline_ms = args.deadline.unwrap_or(0).saturating_mul(1000);
    let staged = client.stage(&path, sha256, args.highest_address, deadline_ms)?;
    Ok(StagedImage {
        image_id: staged.image_id,
        name: path.to_string(),
        size: staged.size,
        sha256: Sha256Digest(staged.sha256).to_string(),
        shared: staged.shared,
        digest,
    })
}

/// The digest of the file as this program sees it now.
///
/// On Windows it reads the file itself, so that driver and client come to the digest by different ways. On Linux only the
/// driver's machine knows the file, so it is read through the driver.
pub(super) fn expected_digest(
    client: &mut Client,
    path: &NtPath,
    terminal: &mut Terminal<'_>,
) -> Result<Sha256Digest, Error> {
    #[cfg(windows)]
    if let Some(local) = path.win32() {
        return local_digest(&local, path, terminal);
    }
    let open = client.open(path)?;
    let mut hasher = Hasher::default();
    let mut progress = Progress::new(terminal, format!("hashing {path}"), open.size);
    client.read_in_pieces(open.handle, 0, None, |data| {
        hasher.update(data);
        progress.add(data.len());
        Ok(())
    })?;
    client.close(open.handle)?;
    Ok(hasher.finish())
}

#[cfg(windows)]
fn local_digest(local: &std::path::Path, path: &NtPath, terminal: &mut Terminal<'_>) -> Result<Sha256Digest, Error> {
    use std::io::Read as _;

    let failed = |error| Error::local(format!("read {path}"), error);
    let mut file = std::fs::File::open(local).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let mut progress = Progress::new(terminal, format!("hashing {path}"), total);
    let mut hasher = Hasher::default();
    let mut piece = vec![0; 1 << 20];
    loop {
        let bytes = file.read(&mut piece).map_err(failed)?;
        if bytes == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&piece[..bytes]);
        progress.add(bytes);
    }
}

impl Output for StagedImages {
    fn text(&self) -> String {
        let line = |image: &StagedImage| {
            let shared = if image.shared { ", was there already" } else { "" };
            format!(
                "{}: image {}, {} bytes, SHA-256 {}{shared}\n",
                image.name, image.image_id, image.size, image.sha256
            )
        };
        self.images.iter().map(line).collect()
    }
}

#[derive(Serialize)]
pub(super) struct Unstaged {
    image: UnstagedImage,
}

#[derive(Serialize)]
struct UnstagedImage {
    image_id: u64,
    size: u64,
}

/// A number means an image's number: no path of an image consists of digits only.
pub(super) fn unstage(client: &mut Client, image: &str) -> Result<Unstaged, Error> {
    let unstaged = match image.parse() {
        Ok(0) => {
            return Err(Error::Usage {
                message: "no image has the number 0".into(),
                next: "give a number that `fwbctl list` shows, or a path".into(),
            });
        }
        Ok(image_id) => client.unstage(image_id)?,
        Err(_) => client.unstage_by_name(&NtPath::from_user(image)?)?,
    };
    Ok(Unstaged { image: UnstagedImage { image_id: unstaged.image_id, size: unstaged.size } })
}

impl Output for Unstaged {
    fn text(&self) -> String {
        facts(&[("unstaged", format!("image {}", self.image.image_id)), ("size", format!("{} bytes", self.image.size))])
    }
}

#[derive(Serialize)]
pub(super) struct Listed {
    images: Vec<ListedImage>,
}

#[derive(Serialize)]
struct ListedImage {
    image_id: u64,
    name: String,
    size: u64,
    /// Null until it is known.
    sha256: Option<String>,
    phase: String,
    bytes_done: u64,
    open_count: u32,
    /// Null where no driver has opened it.
    handed_to: Option<String>,
}

pub(super) fn list(client: &mut Client) -> Result<Listed, Error> {
    let listed = |image: crate::Image| ListedImage {
        image_id: image.image_id,
        name: shown(&image.name).to_owned(),
        size: image.size,
        sha256: (image.sha256.0 != [0; 32]).then(|| image.sha256.to_string()),
        phase: Phase::from_code(image.phase)
            .map_or_else(|| format!("unknown ({})", image.phase), |phase| phase.name().into()),
        bytes_done: image.bytes_done,
        open_count: image.open_count,
        handed_to: Some(image.handed_to).filter(|driver| !driver.is_empty()),
    };
    Ok(Listed { images: client.list()?.into_iter().map(listed).collect() })
}

impl Output for Listed {
    fn text(&self) -> String {
        if self.images.is_empty() {
            return "no image is staged\n".into();
        }
        let rows: Vec<Vec<String>> = self
            .images
            .iter()
            .map(|image| {
                vec![
                    image.image_id.to_string(),
                    image.size.to_string(),
                    image.phase.clone(),
                    image.open_count.to_string(),
                    image.handed_to.clone().unwrap_or_else(|| "-".into()),
                    image.sha256.clone().unwrap_or_else(|| "-".into()),
                    image.name.clone(),
                ]
            })
            .collect();
        table(&["image", "bytes", "phase", "open", "handed to", "SHA-256", "name"], &rows)
    }
}
