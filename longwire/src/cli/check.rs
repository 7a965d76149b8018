//! `longwire check`: what is wrong with a configuration, or the effective one with the origin of each value.

use super::{Failure, print, settings};
use std::path::PathBuf;

/// Prints the effective configuration as TOML, secrets hidden.
pub(super) fn check(path: Option<PathBuf>, flags: &[(String, String)]) -> Result<(), Failure> {
    let (_, sources) = settings::load(path, flags)?;
    print(&sources.to_string())?;
    eprintln!("longwire: the configuration is right");
    Ok(())
}
