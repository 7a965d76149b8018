//! `longwire check --centrifugo FILE`: what longwire's configuration is if Centrifugo's is FILE.
//!
//! `input` reads the file, `mapping` walks it by the rows of `table` and the functions of `rules`, `narrow` says what
//! goes with what is left out, `output` makes longwire's file and lets longwire load it. The file goes to standard output, or where `--out` says; what has
//! no counterpart is named on standard error. What must stay true: the whole mapping stands in `table`, the
//! file that is printed is one that longwire accepts and allows no more than Centrifugo did, and no secret goes anywhere but into that file.

mod convert;
mod input;
mod mapping;
mod narrow;
mod output;
mod rules;
mod table;

use super::{Failure, print, printable};
use crate::env::disk;
use input::Input;
use mapping::{Mapping, Remark};
use std::path::Path;

/// Prints what the configuration of Centrifugo in `path` is for longwire, or writes it to `out`.
pub(super) fn check(path: &Path, out: Option<&Path>) -> Result<(), Failure> {
    let text = disk::read_to_string(path).map_err(|error| Failure::Failed(error.to_string()))?;
    let input = Input::new(path, text);
    let (file, mut mapping) = convert(&input)?;
    match out {
        Some(out) => disk::write(out, &file)?,
        None => print(&file)?,
    }
    // In the order of the file that the user has open.
    mapping.remarks.sort_by_key(|remark| remark.at);
    let (missing, unneeded): (Vec<Remark>, Vec<Remark>) =
        mapping.remarks.into_iter().partition(|remark| remark.is_missing);
    let lines = |remarks: &[Remark]| -> String {
        remarks
            .iter()
            .map(|remark| format!("\n  line {}: {}", input.line(remark.at), printable(&remark.text)))
            .collect()
    };
    if !unneeded.is_empty() {
        eprintln!("longwire: not needed in longwire:{}", lines(&unneeded));
    }
    if let Some(out) = out {
        eprintln!("longwire: wrote {}; `longwire serve --config {0}` runs it", out.display());
    }
    if missing.is_empty() {
        eprintln!("longwire: everything that matters in {} has a counterpart", path.display());
        return Ok(());
    }
    Err(Failure::Config(format!("{} has options without a counterpart:{}", path.display(), lines(&missing))))
}

/// The file for longwire, and what is to be said about it.
fn convert(input: &Input) -> Result<(String, Mapping), Failure> {
    let mut mapping = mapping::map(&input.parse()?);
    if !mapping.errors.is_empty() {
        mapping.errors.sort();
        let lines: Vec<String> = mapping
            .errors
            .iter()
            .map(|(at, problem)| format!("  {}: {}", input.place(*at), printable(problem)))
            .collect();
        return Err(Failure::Failed(format!(
            "this is no configuration of Centrifugo v6:\n{}",
            lines.join("\n")
        )));
    }
    let file = output::file(&mut mapping, &printable(&input.name()))?;
    Ok((file, mapping))
}
