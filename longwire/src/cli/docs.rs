//! `longwire docs`: writes the documents that are generated from tables in the code.

use super::Failure;
use crate::env::disk;
use std::path::Path;

/// Writes `close-codes.md` and `config.md` into `directory`.
pub(super) fn docs(directory: &Path) -> Result<(), Failure> {
    disk::write(&directory.join("close-codes.md"), &longwire_protocol::close::close_codes_markdown())?;
    disk::write(&directory.join("config.md"), &crate::config::markdown())?;
    eprintln!("longwire: wrote close-codes.md and config.md to {}", directory.display());
    Ok(())
}
