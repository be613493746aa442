//! `kernel-host run`: a machine that stays up.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kernel_host::{Adapter, DriverError, Machine};

/// How often the machine's output is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// Arguments of `kernel-host run`. Exits with 1 when a rule was broken.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// A volume, as C:=FOLDER. The first is the system volume.
    #[arg(long = "volume", value_name = "DRIVE=FOLDER", value_parser = volume)]
    volumes: Vec<(String, PathBuf)>,
    /// A driver image; its INF lies beside it, or it is a legacy driver and gets a service of its own name. Drivers of devices wait for their device, others are started in this order.
    #[arg(long = "driver", value_name = "FILE.sys")]
    drivers: Vec<PathBuf>,
    /// A network adapter, as SERVICE[:NAME=VALUE,...]: the values are its registry parameters.
    #[arg(long = "adapter", value_name = "SERVICE:NAME=VALUE", value_parser = adapter)]
    adapters: Vec<AdapterArgument>,
    /// Serve clients on this Unix socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print every call that drivers make.
    #[arg(long)]
    trace: bool,
}

/// An adapter from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AdapterArgument {
    service: String,
    parameters: Vec<(String, String)>,
}

fn volume(text: &str) -> Result<(String, PathBuf), String> {
    let (drive, folder) = text.split_once('=').ok_or("a volume is DRIVE=FOLDER, such as C:=disk")?;
    Ok((drive.to_owned(), PathBuf::from(folder)))
}

fn adapter(text: &str) -> Result<AdapterArgument, String> {
    let (service, rest) = text.split_once(':').unwrap_or((text, ""));
    let pairs = rest.split(',').filter(|pair| !pair.is_empty());
    let parameters = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{pair} is not NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    Ok(AdapterArgument { service: service.to_owned(), parameters: parameters.collect::<Result<_, String>>()? })
}

/// Prints what happened in the machine since it last looked.
#[derive(Default)]
struct Output {
    trace: bool,
    lines_printed: usize,
    next_call: u64,
    finding_printed: bool,
}

impl Output {
    fn print_news(&mut self, machine: &Machine) {
        let lines = machine.debug_log();
        for line in lines.iter().skip(self.lines_printed) {
            println!("{}", line.trim_end());
        }
        self.lines_printed = lines.len();
        if self.trace {
            for entry in machine.trace_since(self.next_call) {
                println!("{entry}");
                self.next_call = entry.sequence + 1;
            }
        }
        if let Some(finding) = machine.finding().filter(|_| !self.finding_printed) {
            self.finding_printed = true;
            eprintln!("{finding}");
        }
    }
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot wait for signals")?;
        }
        let machine = self.build()?;
        let mut output = Output { trace: self.trace, ..Output::default() };
        let started = self.start(&machine);
        output.print_news(&machine);
        let mut is_good = true;
        match started {
            Ok(adapters) => {
                let served = self.wait(&machine, &stop, &mut output);
                is_good &= stop_all(&machine, adapters);
                output.print_news(&machine);
                served?;
            }
            // A finding says more than the operation that it interrupted.
            Err(error) if machine.finding().is_none() => return Err(error),
            Err(_) => {}
        }
        let is_good = is_good && machine.finding().is_none();
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn build(&self) -> anyhow::Result<Machine> {
        let mut builder = Machine::builder();
        for (drive, folder) in &self.volumes {
            builder = builder.volume(drive, folder);
        }
        builder.build().context("cannot build the machine")
    }

    /// Installs all drivers, starts those that start by themselves, plugs the adapters in.
    fn start(&self, machine: &Machine) -> anyhow::Result<Vec<Adapter>> {
        let mut services = Vec::new();
        for driver in &self.drivers {
            let installed = install(machine, driver);
            services.push(installed.with_context(|| format!("cannot install {}", driver.display()))?);
        }
        for service in services {
            if !machine.is_device_service(&service)? {
                machine.load_driver(&service).with_context(|| format!("cannot start {service}"))?;
                println!("{service} started");
            }
        }
        let mut adapters = Vec::new();
        for (index, AdapterArgument { service, parameters }) in self.adapters.iter().enumerate() {
            let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let adapter = machine.plug_in(service, &format!("nic{index}"), &parameters);
            adapters.push(adapter.with_context(|| format!("cannot plug in a device of {service}"))?);
            println!("nic{index} of {service} started");
        }
        Ok(adapters)
    }

    /// Serves until a signal, or until a client stops the machine.
    fn wait(&self, machine: &Machine, stop: &AtomicBool, output: &mut Output) -> anyhow::Result<()> {
        let server: Option<JoinHandle<std::io::Result<()>>> = self.socket.clone().map(|path| {
            let machine = machine.clone();
            std::thread::spawn(move || kernel_host::server::serve(&machine, &path))
        });
        while !stop.load(Ordering::Relaxed) && !server.as_ref().is_some_and(JoinHandle::is_finished) {
            sleep(PERIOD);
            output.print_news(machine);
        }
        match server {
            Some(server) if server.is_finished() => {
                let served = server.join().map_err(|_| anyhow!("the server panicked"))?;
                served.context("cannot serve clients")
            }
            // The process ends soon, and the server thread with it.
            _ => self.remove_socket(),
        }
    }

    fn remove_socket(&self) -> anyhow::Result<()> {
        let Some(path) = &self.socket else { return Ok(()) };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Installs the INF beside the image. Without one, it makes the service that `sc create` would make.
fn install(machine: &Machine, driver: &Path) -> Result<String, DriverError> {
    if ["inf", "inx"].iter().any(|extension| driver.with_extension(extension).exists()) {
        return machine.install_service(driver, None);
    }
    let name = driver.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    machine.create_service(&name, driver)?;
    Ok(name)
}

/// Unplugs devices and unloads drivers, in reverse order; false when one did not leave cleanly.
fn stop_all(machine: &Machine, adapters: Vec<Adapter>) -> bool {
    let mut is_good = true;
    for adapter in adapters.into_iter().rev() {
        if let Err(error) = adapter.remove() {
            eprintln!("an adapter did not stop: {error}");
            is_good = false;
        }
    }
    for driver in machine.drivers().into_iter().rev() {
        match machine.unload_driver(&driver.service, true) {
            Ok(report) => println!("unloaded {report}"),
            Err(DriverError::NotLoaded(_)) => {}
            Err(error) => {
                eprintln!("{} did not unload: {error}", driver.name);
                is_good = false;
            }
        }
    }
    is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_have_a_service_and_parameters() {
        let parsed = adapter("samplenic:FirmwareName=8086100e.rom,Speed=1").unwrap();
        assert_eq!(parsed.service, "samplenic");
        assert_eq!(parsed.parameters[0], ("FirmwareName".to_owned(), "8086100e.rom".to_owned()));
        assert_eq!(parsed.parameters.len(), 2);
        assert_eq!(adapter("samplenic").unwrap().parameters, []);
        assert!(adapter("samplenic:FirmwareName").is_err());
    }

    #[test]
    fn volumes_have_a_drive_and_a_folder() {
        assert_eq!(volume("C:=a=b").unwrap(), ("C:".to_owned(), PathBuf::from("a=b")));
        assert!(volume("C:").is_err());
    }
}
