//! `fwbctl publish`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::PublishArgs;
use super::output::{Output, Progress, Terminal, facts};
use super::staging::expected_digest;
use crate::error::FltlibCall;
use crate::publish::{PendingFile, is_plain_name};
use crate::{Client, Error, FilterLibrary, Hasher, NtPath, Sha256Digest};

#[derive(Serialize)]
pub(super) struct Published {
    published: PublishedFile,
}

#[derive(Serialize)]
struct PublishedFile {
    name: String,
    path: PathBuf,
    size: u64,
    sha256: String,
}

/// Stages the file, which is what verifies it, copies it through the driver, and puts it in place if the copy has the
/// digest that the driver verified.
pub(super) fn publish(
    library: &mut dyn FilterLibrary,
    args: &PublishArgs,
    terminal: &mut Terminal<'_>,
) -> Result<Published, Error> {
    let path = NtPath::from_user(&args.file)?;
    let name = args.name.as_deref().unwrap_or(path.file_name());
    if !is_plain_name(name) {
        return Err(Error::Usage {
            message: format!("`{name}` is not a plain file name"),
            next: "give --name NAME without folders".into(),
        });
    }
    let folder = match &args.to {
        Some(folder) => folder.clone(),
        None => library.drivers_folder().map_err(|error| Error::Call {
            action: "find the drivers folder".into(),
            call: FltlibCall::Folders,
            error,
        })?,
    };
    let mut client = Client::connect(library)?;
    // Open from before the verification until after the copy: as long, nobody can open the file for writing.
    let open = client.open(&path)?;
    let expected = match args.sha256 {
        Some(given) => given,
        None => expected_digest(&mut client, &path, terminal)?,
    };
    let staged = client.stage(&path, Some(expected), None, 0)?;
    let copied = copy(&mut client, open.handle, staged.sha256, &folder, name, terminal);
    // An image that was staged only for this is taken out again; one that others wanted stays.
    let unstaged = if staged.shared { Ok(()) } else { client.unstage(staged.image_id).map(drop) };
    let published = copied?;
    unstaged?;
    client.close(open.handle)?;
    Ok(Published { published })
}

fn copy(
    client: &mut Client,
    handle: u64,
    verified: [u8; 32],
    folder: &Path,
    name: &str,
    terminal: &mut Terminal<'_>,
) -> Result<PublishedFile, Error> {
    let action = format!("publish {}", folder.join(name).display());
    let failed = |error| Error::local(action.as_str(), error);
    let mut pending = PendingFile::create(folder, name).map_err(failed)?;
    let total = client.query(handle)?.size;
    let mut hasher = Hasher::default();
    let mut progress = Progress::new(terminal, format!("publishing {name}"), total);
    let size = client.read_in_pieces(handle, 0, None, |data| {
        hasher.update(data);
        progress.add(data.len());
        pending.write_all(data).map_err(failed)
    })?;
    drop(progress);
    let actual = hasher.finish();
    if actual.0 != verified {
        return Err(Error::Changed {
            action,
            expected: Sha256Digest(verified).to_string(),
            actual: actual.to_string(),
        });
    }
    let path = pending.commit().map_err(failed)?;
    Ok(PublishedFile { name: name.into(), path, size, sha256: actual.to_string() })
}

impl Output for Published {
    fn text(&self) -> String {
        let file = &self.published;
        facts(&[
            ("published", file.path.display().to_string()),
            ("size", format!("{} bytes", file.size)),
            ("SHA-256", file.sha256.clone()),
        ])
    }
}
