//! The program: arguments, what each command does, how results and errors are shown.

mod args;
mod files;
mod inventory;
mod output;
mod publish;
mod staging;
mod status;

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use clap::Parser as _;
use protocol::SERVICE_NAME;
use serde::Serialize;

pub use args::{Cli, Command, DigestArgs, HandlesArgs, PublishArgs, ReadArgs, StageArgs};

use crate::error::FltlibCall;
use crate::{Client, Error, ErrorReport, FilterLibrary, LibraryError};
use output::{Output, Terminal};

/// Runs the program on this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let mut terminal = Terminal {
        out: &mut std::io::stdout().lock(),
        err: &mut std::io::stderr(),
        progress: std::io::stderr().is_terminal(),
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Programs get JSON for their own mistakes too; `--help` and the like are no mistakes.
        Err(error) if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            let error = usage_error(&error);
            let _ = show(true, &output::Nothing {}, Some(&error), &mut terminal);
            return error.exit_code().into();
        }
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2).into();
        }
    };
    #[cfg(unix)]
    let socket = cli.socket.clone();
    #[cfg(windows)]
    let socket: Option<std::path::PathBuf> = None;
    run_on(&cli, &mut || crate::system_library(socket.as_deref()), &mut terminal).into()
}

/// The first paragraph of what clap says, which is the mistake itself; usage and hints follow it.
fn usage_error(error: &clap::Error) -> Error {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = first.lines().map(str::trim).collect();
    let message = lines.join(" ");
    Error::Usage {
        message: message.strip_prefix("error: ").unwrap_or(&message).to_owned(),
        next: "see `fwbctl --help`".into(),
    }
}

/// Runs one command and returns its exit code. `library` is called when the command needs the driver; what is for
/// programs goes to `out`, what is for people to `err`.
pub fn run(
    cli: &Cli,
    library: &mut dyn FnMut() -> Result<Box<dyn FilterLibrary>, Error>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    run_on(cli, library, &mut Terminal { out, err, progress: false })
}

fn run_on(
    cli: &Cli,
    library: &mut dyn FnMut() -> Result<Box<dyn FilterLibrary>, Error>,
    terminal: &mut Terminal<'_>,
) -> u8 {
    let shown = execute(cli, library, terminal).and_then(|(output, error)| {
        // What was done before an error is shown as well.
        show(cli.json, output.as_ref(), error.as_ref(), terminal)?;
        Ok(error.map_or(0, |error| error.exit_code()))
    });
    shown.unwrap_or_else(|error| {
        // Where even this cannot be shown, the exit code still can.
        let _ = show(cli.json, &output::Nothing {}, Some(&error), terminal);
        error.exit_code()
    })
}

/// What a command has done, and the error that ended it early, if one did.
type Outcome = (Box<dyn Output>, Option<Error>);

fn execute(
    cli: &Cli,
    library: &mut dyn FnMut() -> Result<Box<dyn FilterLibrary>, Error>,
    terminal: &mut Terminal<'_>,
) -> Result<Outcome, Error> {
    if let Command::Read(ReadArgs { output: None, .. }) = &cli.command
        && cli.json
    {
        return Err(Error::Usage {
            message: "with --json the bytes need a file of their own".into(),
            next: "give --output FILE".into(),
        });
    }
    let mut library = library()?;
    let library = library.as_mut();
    let output: Box<dyn Output> = match &cli.command {
        Command::Load => Box::new(load(library)?),
        Command::Unload => Box::new(unload(library)?),
        Command::Status => Box::new(status::status(&mut Client::connect(library)?)?),
        Command::Open { file } => Box::new(files::open(&mut Client::connect(library)?, file)?),
        Command::Read(args) => Box::new(files::read(&mut Client::connect(library)?, args, terminal)?),
        Command::Stage(args) => return staging::stage(library, args, terminal),
        Command::Unstage { image } => Box::new(staging::unstage(&mut Client::connect(library)?, image)?),
        Command::List => Box::new(staging::list(&mut Client::connect(library)?)?),
        Command::Handles(args) => return inventory::handles(&mut Client::connect(library)?, args),
        Command::Sessions => Box::new(inventory::sessions(&mut Client::connect(library)?)?),
        Command::Publish(args) => Box::new(publish::publish(library, args, terminal)?),
    };
    Ok((output, None))
}

#[derive(Serialize)]
struct Loaded {
    loaded: &'static str,
}

impl Output for Loaded {
    fn text(&self) -> String {
        format!("{} is loaded\n", self.loaded)
    }
}

fn load(library: &mut dyn FilterLibrary) -> Result<Loaded, Error> {
    let failed = |error| service_error("load", FltlibCall::Load, error);
    library.load(SERVICE_NAME).map_err(failed)?;
    Ok(Loaded { loaded: SERVICE_NAME })
}

#[derive(Serialize)]
struct Unloaded {
    unloaded: &'static str,
}

impl Output for Unloaded {
    fn text(&self) -> String {
        format!("{} is unloaded\n", self.unloaded)
    }
}

fn unload(library: &mut dyn FilterLibrary) -> Result<Unloaded, Error> {
    let failed = |error| service_error("unload", FltlibCall::Unload, error);
    library.unload(SERVICE_NAME).map_err(failed)?;
    Ok(Unloaded { unloaded: SERVICE_NAME })
}

fn service_error(verb: &str, call: FltlibCall, error: LibraryError) -> Error {
    Error::Call { action: format!("{verb} {SERVICE_NAME}"), call, error }
}

/// Shows what was done, and the error if there is one.
fn show(json: bool, output: &dyn Output, error: Option<&Error>, terminal: &mut Terminal<'_>) -> Result<(), Error> {
    let shown = if json {
        let mut object = output.json();
        if let Some(error) = error {
            object.insert("error".into(), serde_json::json!(error.report()));
        }
        let text = serde_json::Value::Object(object);
        writeln!(terminal.out, "{text:#}").and_then(|()| terminal.out.flush())
    } else {
        let result = terminal.out.write_all(output.text().as_bytes());
        result
            .and_then(|()| terminal.out.flush())
            .and_then(|()| error.map_or(Ok(()), |error| show_error(&error.report(), terminal.err)))
    };
    shown.map_err(|error| Error::local("write the result", error))
}

fn show_error(report: &ErrorReport, err: &mut dyn Write) -> std::io::Result<()> {
    writeln!(err, "fwbctl: {}", report.message)?;
    match (&report.status_name, &report.status) {
        (Some(name), Some(status)) => writeln!(err, "  status: {name} ({status})")?,
        (None, Some(status)) => writeln!(err, "  status: {status}")?,
        _ => {}
    }
    writeln!(err, "  next:   {}", report.next)
}
