//! The versions of STOMP, and which of them is spoken.

/// A version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// 1.0, which has no escapes and no heartbeats.
    V10,
    /// 1.1, which has no escape for a carriage return.
    V11,
    /// 1.2.
    V12,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 3] = [Version::V10, Version::V11, Version::V12];

    /// The version as it stands in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V10 => "1.0",
            Version::V11 => "1.1",
            Version::V12 => "1.2",
        }
    }

    /// The name of the WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Version::V10 => "v10.stomp",
            Version::V11 => "v11.stomp",
            Version::V12 => "v12.stomp",
        }
    }

    /// The highest version of those that a client accepts, as its header lists them; 1.0 for a client that says nothing
    /// of versions. `None` if there is none in common.
    pub fn negotiate(accepted: Option<&str>) -> Option<Version> {
        let Some(accepted) = accepted else { return Some(Version::V10) };
        // Versions are words and not numbers: 1.10 would not be 1.1.
        let is_accepted =
            |version: &&Version| accepted.split(',').any(|word| word.trim() == version.as_str());
        Version::ALL.iter().rev().find(is_accepted).copied()
    }

    /// The subprotocol that answers those which a WebSocket client offers: the highest; `None` if it offers none of
    /// ours. What is spoken is agreed upon by CONNECT alone.
    pub fn choose_subprotocol<'a>(offered: impl Iterator<Item = &'a str>) -> Option<Version> {
        offered.filter_map(|name| Version::ALL.into_iter().find(|v| v.subprotocol() == name)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_in_common_is_spoken_whatever_the_order() {
        for (accepted, spoken) in [
            (None, Some(Version::V10)),
            (Some("1.0,1.1,1.2"), Some(Version::V12)),
            (Some("1.2 , 1.1"), Some(Version::V12)),
            (Some("1.1,1.10,2.0"), Some(Version::V11)),
            (Some("1.10"), None),
            (Some("1.20"), None),
            (Some(""), None),
        ] {
            assert_eq!(Version::negotiate(accepted), spoken, "{accepted:?}");
        }
    }

    #[test]
    fn the_highest_subprotocol_that_is_offered_is_chosen() {
        let choose = |offered: &str| Version::choose_subprotocol(offered.split(','));
        assert_eq!(choose("v10.stomp,v12.stomp,v11.stomp"), Some(Version::V12));
        assert_eq!(choose("v11.stomp,chat"), Some(Version::V11));
        assert_eq!(choose("stomp,V12.STOMP"), None);
    }
}
