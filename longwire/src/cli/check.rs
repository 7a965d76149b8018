//! `longwire check`: what is wrong with a configuration, or the effective one with the origin of each value.

use super::{Failure, centrifugo, print, settings};
use crate::auth::Verifier;
use crate::server::Certificates;
use std::path::PathBuf;

/// What `longwire check` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: super::ConfigFile,
    /// Prints what a configuration of Centrifugo v6 (JSON or TOML) is for longwire, and names what has no
    /// counterpart. No other configuration is read then.
    #[arg(long, value_name = "FILE")]
    centrifugo: Option<PathBuf>,
    /// Writes that to a file instead.
    #[arg(long, value_name = "FILE", requires = "centrifugo")]
    out: Option<PathBuf>,
}

/// Prints the effective configuration as TOML, secrets hidden, or the one that Centrifugo's file means.
pub(super) fn check(arguments: Arguments, flags: &[(String, String)]) -> Result<(), Failure> {
    if let Some(path) = arguments.centrifugo {
        if let Some((name, _)) = flags.first() {
            return Err(Failure::Usage(format!(
                "with --centrifugo this command takes no settings: `{name}`"
            )));
        }
        return centrifugo::check(&path, arguments.out.as_deref());
    }
    let (config, sources) = settings::load(arguments.file.config, flags)?;
    // Keys and certificates are read at the start, too, and nothing else of a configuration can still be wrong then.
    Verifier::from_config(&config).map_err(|error| Failure::Config(error.to_string()))?;
    Certificates::load(&config.listeners).map_err(|error| Failure::Config(error.to_string()))?;
    print(&sources.to_string())?;
    eprintln!("longwire: the configuration is right");
    Ok(())
}
