//! Makes data whole of what comes as differences (centrifuge protocol, section 7).
//!
//! What must stay true: a difference that does not fit becomes text that nobody published, so that whoever
//! compares it with what was published sees it.

use super::said::Publication;
use crate::client::Heard;
use longwire_protocol::centrifuge::Format;
use longwire_protocol::fossil;

/// Longer data is not made.
const MAX_BYTES: usize = 16 << 20;

/// The data of one subscription.
#[derive(Default)]
pub(super) struct Deltas {
    is_agreed: bool,
    /// What came last.
    base: Option<Vec<u8>>,
}

impl Deltas {
    /// A subscription that begins, with differences or without.
    pub(super) fn new(is_agreed: bool) -> Deltas {
        Deltas { is_agreed, base: None }
    }

    /// The publication as the application gets it, in a channel of this epoch.
    pub(super) fn read(
        &mut self,
        publication: &Publication,
        epoch: Option<&str>,
        format: Format,
    ) -> Result<Heard, String> {
        Ok(Heard {
            offset: Some(publication.offset).filter(|offset| *offset != 0),
            epoch: epoch.map(str::to_owned),
            data: self.data(publication, format)?,
        })
    }

    fn data(&mut self, publication: &Publication, format: Format) -> Result<String, String> {
        let raw = &publication.data.0;
        if !self.is_agreed {
            if publication.delta {
                return Err("a difference that nobody agreed to".to_owned());
            }
            return text(raw.clone()).map(|data| if format == Format::Json { unescaped(data) } else { data });
        }
        let said = match format {
            Format::Protobuf => raw.clone(),
            Format::Json => {
                let text: String = serde_json::from_slice(raw)
                    .map_err(|error| format!("data that is no string where differences come: {error}"))?;
                text.into_bytes()
            }
        };
        let whole = match (publication.delta, &self.base) {
            (false, _) => Ok(said),
            (true, None) => Err("a difference to nothing".to_owned()),
            (true, Some(base)) => fossil::apply(base, &said, MAX_BYTES)
                .map_err(|error| format!("a difference to another: {error}")),
        };
        match whole {
            Ok(whole) => {
                self.base = Some(whole.clone());
                text(whole)
            }
            Err(what) => Ok(format!("<{what}>")),
        }
    }
}

fn text(data: Vec<u8>) -> Result<String, String> {
    String::from_utf8(data).map_err(|_| "data that is no text".to_owned())
}

/// The same value with its characters as they are: some transports write them as escapes.
fn unescaped(data: String) -> String {
    if !data.contains("\\u") {
        return data;
    }
    match serde_json::from_str::<serde_json::Value>(&data) {
        Ok(value) => value.to_string(),
        Err(_) => data,
    }
}
