//! Configures the link of the .sys, on Windows and Linux alike.

fn main() -> Result<(), wdk_build::ConfigError> {
    wdk_build::configure_wdk_binary_build()?;
    // Fills in the PE checksum, which has to be right in a driver; linkers leave it at zero otherwise.
    println!("cargo::rustc-cdylib-link-arg=/RELEASE");
    Ok(())
}
