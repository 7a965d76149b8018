//! Files: the configuration that is read and the documents that are written.

use std::io;
use std::path::Path;

/// Reads a whole text file.
///
/// # Errors
/// The operating system's, with the path in the text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| with_path("read", path, error))
}

/// Replaces a whole text file.
///
/// # Errors
/// The operating system's, with the path in the text.
pub fn write(path: &Path, contents: &str) -> io::Result<()> {
    std::fs::write(path, contents).map_err(|error| with_path("write", path, error))
}

fn with_path(verb: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} \"{}\": {error}", path.display()))
}
