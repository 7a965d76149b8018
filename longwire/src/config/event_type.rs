//! The types of events that a backend can be told of.
//!
//! `kind` reads their names from the configuration, `events` records them. What must stay true: the names are
//! on the wire and in people's settings, and a type's [`number`](EventType::number) is on their disks.

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A client was told that it is connected.
    Connected,
    /// Its connection ended.
    Disconnected,
    /// A client was told that it is subscribed to a channel.
    Subscribed,
    /// Its subscription ended.
    Unsubscribed,
    /// A channel has its first subscriber on this node.
    Occupied,
    /// A channel has had no subscriber on this node for a while.
    Vacated,
}

impl EventType {
    /// All of them, each beginning before its end.
    pub const ALL: [EventType; 6] = [
        EventType::Connected,
        EventType::Disconnected,
        EventType::Subscribed,
        EventType::Unsubscribed,
        EventType::Occupied,
        EventType::Vacated,
    ];

    /// The name in payloads and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Connected => "connected",
            EventType::Disconnected => "disconnected",
            EventType::Subscribed => "subscribed",
            EventType::Unsubscribed => "unsubscribed",
            EventType::Occupied => "occupied",
            EventType::Vacated => "vacated",
        }
    }

    /// The type of this name.
    pub fn parse(name: &str) -> Option<EventType> {
        EventType::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The number on the disk, from 1.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The type of this number.
    pub fn numbered(number: u8) -> Option<EventType> {
        EventType::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The type that ends what this one begins; `None` for an end.
    pub fn end(self) -> Option<EventType> {
        match self {
            EventType::Connected => Some(EventType::Disconnected),
            EventType::Subscribed => Some(EventType::Unsubscribed),
            EventType::Occupied => Some(EventType::Vacated),
            EventType::Disconnected | EventType::Unsubscribed | EventType::Vacated => None,
        }
    }

    /// Whether it is about a client, and not about a channel alone.
    pub fn has_client(self) -> bool {
        !matches!(self, EventType::Occupied | EventType::Vacated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_its_name_and_its_number() {
        for (index, kind) in EventType::ALL.into_iter().enumerate() {
            assert_eq!(EventType::parse(kind.as_str()), Some(kind));
            assert_eq!(EventType::numbered(index as u8 + 1), Some(kind));
        }
        assert_eq!(
            (EventType::parse("gone"), EventType::numbered(0), EventType::numbered(7)),
            (None, None, None)
        );
    }
}
