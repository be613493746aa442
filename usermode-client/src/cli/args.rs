//! The command line. Doc comments here are the text of `--help`.
#![expect(clippy::doc_markdown, reason = "backticks would be printed on the terminal")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::Sha256Digest;

/// Talks to fwbroker, the driver that verifies firmware images and hands them to NIC drivers.
#[derive(Debug, Parser)]
#[command(
    name = "fwbctl",
    version,
    after_help = "\
Paths of images are those of the machine in which the driver runs: C:\\Firmware\\nic.rom, or NT paths such as
\\SystemRoot\\Firmware\\nic.rom.

Exit codes:
  0  done
  1  refused by the driver, or a file could not be read or written
  2  wrong usage
  3  the driver cannot be reached (not loaded, no rights, no socket)

With --json every command prints one JSON object to standard output, also for errors:
  {\"error\": {\"status\", \"status_name\", \"reason\", \"phase\", \"message\", \"next\"}}"
)]
pub struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    /// Socket of the kernel-host in which the driver runs [env: FWBROKER_SOCKET].
    #[cfg(unix)]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the driver.
    Load,
    /// Stop the driver. It refuses while clients or NIC drivers hold handles or images.
    Unload,
    /// Show the driver's version, policy and limits, and how much is staged.
    Status,
    /// Open a file through the driver, show its facts, and close it.
    Open {
        /// File in the machine.
        file: String,
    },
    /// Read a file through the driver.
    Read(ReadArgs),
    /// Verify files and keep them in memory for NIC drivers.
    Stage(StageArgs),
    /// Take a staged image out, so that no new driver gets it.
    Unstage {
        /// Number of the image as `list` shows it, or the path it was staged under.
        image: String,
    },
    /// Show the staged images and who got them.
    List,
    /// Show who holds which file or image, or take handles away.
    Handles(HandlesArgs),
    /// Show who is connected, and how much of its quotas each session uses.
    Sessions,
    /// Put a verified file where NdisOpenFile looks, for NIC drivers that do not know fwbroker.
    Publish(PublishArgs),
}

/// Arguments of `read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// File in the machine.
    pub file: String,
    /// First byte to read.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub offset: u64,
    /// How many bytes to read at most; without it, up to the end of the file.
    #[arg(long, value_name = "BYTES")]
    pub length: Option<u64>,
    /// Where to write the bytes; without it, to standard output. Needed with --json.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// Which digest the driver shall check a file against.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
pub struct DigestArgs {
    /// SHA-256 that the file must have, from its vendor or your build.
    ///
    /// Without it fwbctl computes the digest from the file as it is now. That only proves that the driver staged what
    /// fwbctl saw: a file that was changed before goes through. A digest that reached you another way than the file
    /// did (the vendor's page, a signed list, your build's output) also proves that it is the right file.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<Sha256Digest>,
    /// Send no digest. Only the policy `unsigned` allows that.
    #[arg(long)]
    pub no_digest: bool,
}

/// Arguments of `stage`.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// Files in the machine. The first that is refused ends the command.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// What to check the files against.
    #[command(flatten)]
    pub digest: DigestArgs,
    /// Highest physical address the image may touch, for devices that cannot reach all memory (0xFFFFFFFF: below 4 GiB).
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub highest_address: Option<u64>,
    /// Give up after this many seconds; without it, when the driver does.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=240))]
    pub deadline: Option<u32>,
}

/// Arguments of `handles`.
#[derive(Debug, Args)]
pub struct HandlesArgs {
    /// Show only handles of this session.
    #[arg(long, value_name = "ID")]
    pub session: Option<u64>,
    /// Show only handles of this process.
    #[arg(long, value_name = "PID")]
    pub owner: Option<u64>,
    /// Take these handles away from their owners; numbers as `fwbctl handles` shows them.
    ///
    /// Requests that use a handle go on to their end; the owner's next one fails with HandleRevoked. The file is closed as soon as
    /// nothing uses it. Handles of NIC drivers are never taken away: disable the adapter instead.
    #[arg(long, value_name = "HANDLE", num_args = 1.., value_parser = number, conflicts_with_all = ["session", "owner"])]
    pub revoke: Vec<u64>,
    /// Take all handles of this session away. It stays connected, and may open others.
    #[arg(long, value_name = "ID", value_parser = number, conflicts_with_all = ["session", "owner", "revoke"])]
    pub revoke_session: Option<u64>,
    /// Take all handles of this process away, in all its sessions.
    #[arg(
        long,
        value_name = "PID",
        value_parser = number,
        conflicts_with_all = ["session", "owner", "revoke", "revoke_session"]
    )]
    pub revoke_owner: Option<u64>,
}

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// File in the machine.
    pub file: String,
    /// Name to publish it under; without it, its own.
    #[arg(long)]
    pub name: Option<String>,
    /// Folder to publish it in, as this program reaches it; without it, where NdisOpenFile looks:
    /// %SystemRoot%\System32\drivers, or the host folder that kernel-host uses for it.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// SHA-256 that the file must have; see `fwbctl help stage` for why to give it.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<Sha256Digest>,
}

/// What can be revoked has a number, and none has the number 0.
fn number(text: &str) -> Result<u64, String> {
    match address(text)? {
        0 => Err("nothing has the number 0".into()),
        number => Ok(number),
    }
}

/// A number, decimal or with 0x; a physical address, mostly.
fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["fwbctl"], args].concat())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_why_a_digest_from_elsewhere_is_stronger() {
        let help = parse(&["stage", "--help"]).unwrap_err().to_string();
        assert!(help.contains("another way than the file"), "{help}");
    }

    #[test]
    fn contradictions_and_nonsense_are_usage_errors() {
        let digest = "0".repeat(64);
        for args in [
            &["stage"][..],
            &["stage", "x", "--sha256", "12"],
            &["stage", "x", "--no-digest", "--sha256", &digest],
            &["stage", "x", "--deadline", "0"],
            &["stage", "x", "--highest-address", "0xg"],
            &["read", "x", "--offset", "-1"],
            &["handles", "--revoke"],
            &["handles", "--revoke", "0"],
            &["handles", "--revoke", "me"],
            &["handles", "--revoke", "1", "--revoke-session", "2"],
            &["handles", "--revoke-owner", "1", "--session", "2"],
            &["erase", "x"],
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn addresses_are_decimal_or_hexadecimal() {
        assert_eq!(address("0xFFFFFFFF"), Ok(0xFFFF_FFFF));
        assert_eq!(address("4096"), Ok(4096));
    }
}
