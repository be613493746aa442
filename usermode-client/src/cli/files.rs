//! `fwbctl open` and `fwbctl read`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use protocol::ObjectKind;
use serde::Serialize;

use super::ReadArgs;
use super::output::{Output, Progress, Terminal, facts, nt_time};
use crate::{Client, Error, Hasher, NtPath};

#[derive(Serialize)]
pub(super) struct Opened {
    file: FileFacts,
}

#[derive(Serialize)]
struct FileFacts {
    name: String,
    size: u64,
    allocation_size: u64,
    change_time: String,
    volume_serial: String,
    file_id: String,
    attributes: u32,
    number_of_links: u32,
    kind: String,
}

pub(super) fn open(client: &mut Client, file: &str) -> Result<Opened, Error> {
    let path = NtPath::from_user(file)?;
    let handle = client.open(&path)?.handle;
    let query = client.query(handle)?;
    client.close(handle)?;
    Ok(Opened {
        file: FileFacts {
            name: path.to_string(),
            size: query.size,
            allocation_size: query.allocation_size,
            change_time: nt_time(query.change_time),
            volume_serial: format!("{:016x}", query.volume_serial),
            // Most significant digit first, as `fsutil file queryfileid` prints it.
            file_id: format!("{:032x}", u128::from_le_bytes(query.file_id)),
            attributes: query.attributes,
            number_of_links: query.number_of_links,
            kind: ObjectKind::from_code(query.kind)
                .map_or_else(|| format!("unknown ({})", query.kind), |kind| kind.name().into()),
        },
    })
}

impl Output for Opened {
    fn text(&self) -> String {
        let file = &self.file;
        facts(&[
            ("name", file.name.clone()),
            ("kind", file.kind.clone()),
            ("size", format!("{} bytes", file.size)),
            ("on disk", format!("{} bytes", file.allocation_size)),
            ("changed", file.change_time.clone()),
            ("volume serial", file.volume_serial.clone()),
            ("file id", file.file_id.clone()),
            ("attributes", format!("0x{:08X}", file.attributes)),
            ("links", file.number_of_links.to_string()),
        ])
    }
}

#[derive(Serialize)]
pub(super) struct Read {
    name: String,
    offset: u64,
    bytes: u64,
    sha256: String,
    output: Option<PathBuf>,
}

pub(super) fn read(client: &mut Client, args: &ReadArgs, terminal: &mut Terminal<'_>) -> Result<Read, Error> {
    let path = NtPath::from_user(&args.file)?;
    // Opened first: a file that is refused must not cost the user an existing output file.
    let open = client.open(&path)?;
    let action = args
        .output
        .as_ref()
        .map_or_else(|| "write to standard output".to_owned(), |output| format!("write {}", output.display()));
    let mut target = match &args.output {
        Some(output) => Some(File::create(output).map_err(|error| Error::local(action.as_str(), error))?),
        None => None,
    };
    let total = open.size.saturating_sub(args.offset).min(args.length.unwrap_or(u64::MAX));
    let mut hasher = Hasher::default();
    let mut pieces = |data: &[u8], out: &mut dyn Write| {
        hasher.update(data);
        out.write_all(data).map_err(|error| Error::local(action.as_str(), error))
    };
    let bytes = if let Some(target) = &mut target {
        let mut progress = Progress::new(terminal, format!("reading {path}"), total);
        client.read_in_pieces(open.handle, args.offset, args.length, |data| {
            progress.add(data.len());
            pieces(data, target)
        })?
    } else {
        client.read_in_pieces(open.handle, args.offset, args.length, |data| pieces(data, terminal.out))?
    };
    client.close(open.handle)?;
    Ok(Read {
        name: path.to_string(),
        offset: args.offset,
        bytes,
        sha256: hasher.finish().to_string(),
        output: args.output.clone(),
    })
}

impl Output for Read {
    fn text(&self) -> String {
        // The bytes themselves are the output where they went to standard output.
        self.output.as_ref().map_or_else(String::new, |output| {
            format!("{} bytes in {}, SHA-256 {}\n", self.bytes, output.display(), self.sha256)
        })
    }
}
