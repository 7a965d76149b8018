//! Settings that are one word of a few: the enumerations and their kinds.
//!
//! `words!` makes of one list the enumeration, its words and its [`Kind`]. What must stay true: the words here are
//! the ones in the documentation of the settings that use them.

use super::kind::{Form, Kind, must_be};
use toml::Value;

/// An enumeration whose variants are words, and the kind of settings of its type.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident, $kind:ident: $in_words:literal {
            $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $( $(#[doc = $variant_doc])+ $variant, )+ }

        impl $name {
            /// All of them.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// The word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        $(#[doc = $doc])+
        pub(super) const $kind: Kind<$name> = Kind {
            name: concat!("one of ", $in_words),
            form: Form::Text,
            read: |value| {
                let known = $name::ALL.into_iter().find(|known| Some(known.as_str()) == value.as_str());
                known.ok_or_else(|| must_be(&concat!("one of ", $in_words).replace('`', ""), value))
            },
            show: |word| Some(Value::String(word.as_str().to_owned())),
        };
    };
}

words! {
    /// What may be published into a channel.
    pub enum DataFormat, DATA_FORMAT: "`\"\"`, `\"json\"`, `\"json_object\"`, `\"binary\"`" {
        /// Any JSON.
        Any = "",
        /// Any JSON, too; Centrifugo tells the two apart.
        Json = "json",
        /// A JSON object.
        JsonObject = "json_object",
        /// Any bytes, none included.
        Binary = "binary",
    }
}

words! {
    /// What becomes of a second connection with the name of one that lives.
    pub enum SecondConnection, SECOND_CONNECTION: "`\"replace\"`, `\"refuse\"`" {
        /// It goes on in the place of the first, which is closed.
        Replace = "replace",
        /// It is refused.
        Refuse = "refuse",
    }
}

words! {
    /// What is spoken on a listener.
    pub enum Protocol, PROTOCOL: "`\"http\"`, `\"tcp\"`, `\"stomp\"`" {
        /// HTTP, and what begins with it.
        Http = "http",
        /// Packets of the plain dialect.
        Tcp = "tcp",
        /// Frames of STOMP.
        Stomp = "stomp",
    }
}

words! {
    /// What becomes of a message for which a queue has no room.
    pub enum WhenFull, WHEN_FULL: "`\"refuse\"`, `\"drop_oldest\"`, `\"dead_letter\"`" {
        /// Whoever sends it is told so.
        Refuse = "refuse",
        /// The oldest messages that wait are dropped.
        DropOldest = "drop_oldest",
        /// The oldest messages that wait become dead letters.
        DeadLetter = "dead_letter",
    }
}

words! {
    /// Who may connect without login and passcode.
    pub enum Anonymous, ANONYMOUS: "`\"loopback\"`, `\"always\"`, `\"never\"`" {
        /// Clients on this machine.
        Loopback = "loopback",
        /// Everybody.
        Always = "always",
        /// Nobody.
        Never = "never",
    }
}

words! {
    /// What clients of the plain dialect get.
    pub enum PlainFormat, PLAIN_FORMAT: "`\"json\"`, `\"bare\"`" {
        /// Objects that say what they are.
        Json = "json",
        /// Data alone.
        Bare = "bare",
    }
}

words! {
    /// How a packet's end is known.
    pub enum Framing, FRAMING: "`\"terminator\"`, `\"length\"`" {
        /// Certain bytes end it.
        Terminator = "terminator",
        /// A field in its head tells.
        Length = "length",
    }
}

words! {
    /// The order of a length field's bytes.
    pub enum LengthOrder, LENGTH_ORDER: "`\"big\"`, `\"little\"`" {
        /// The most significant first, as on networks.
        Big = "big",
        /// The least significant first.
        Little = "little",
    }
}

words! {
    /// What a length field counts.
    pub enum LengthCounts, LENGTH_COUNTS: "`\"body\"`, `\"packet\"`" {
        /// The bytes from the body's begin.
        Body = "body",
        /// All bytes.
        Packet = "packet",
    }
}

words! {
    /// What a client's first packet is.
    pub enum FirstPacket, FIRST_PACKET: "`\"none\"`, `\"client\"`, `\"token\"`, `\"json\"`" {
        /// A message as all others.
        None = "none",
        /// The name that the client gives itself.
        Client = "client",
        /// Its token.
        Token = "token",
        /// An object that has these and more.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_being_shown_and_another_is_refused() {
        for format in DataFormat::ALL {
            assert_eq!((DATA_FORMAT.read)(&(DATA_FORMAT.show)(&format).unwrap()), Ok(format));
        }
        for packet in FirstPacket::ALL {
            assert_eq!((FIRST_PACKET.read)(&(FIRST_PACKET.show)(&packet).unwrap()), Ok(packet));
        }
        assert!((DATA_FORMAT.read)(&Value::String("JSON".into())).is_err());
        let refused = (PROTOCOL.read)(&Value::String("udp".into())).unwrap_err();
        assert_eq!(refused, "must be one of \"http\", \"tcp\", \"stomp\", not \"udp\"");
    }
}
