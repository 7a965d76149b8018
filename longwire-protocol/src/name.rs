//! Channel names: what is allowed and what the parts mean.
//!
//! `ns:rest` lies in namespace `ns`; a leading `$` makes a channel private (a subscription token is
//! mandatory); after the last `#` may stand the users that are allowed in, separated by commas.

/// A channel name taken apart. Borrowed from the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelName<'a> {
    /// The text before the first `:`, without a leading `$`; `None` for the default options.
    pub namespace: Option<&'a str>,
    /// The name begins with `$`.
    pub is_private: bool,
    /// The comma-separated list after the last `#`.
    pub users: Option<&'a str>,
}

impl<'a> ChannelName<'a> {
    /// Takes a name apart; any text is a name, [`is_valid`] says which are allowed.
    pub fn parse(name: &'a str) -> ChannelName<'a> {
        let is_private = name.starts_with('$');
        let rest = name.strip_prefix('$').unwrap_or(name);
        ChannelName {
            namespace: rest.split_once(':').map(|(namespace, _)| namespace),
            is_private,
            users: name.rsplit_once('#').map(|(_, users)| users),
        }
    }

    /// Whether `user` is in the list after `#`; an anonymous user (empty) never is.
    pub fn names_user(&self, user: &str) -> bool {
        !user.is_empty() && self.users.is_some_and(|users| users.split(',').any(|name| name == user))
    }
}

/// Whether a channel may have this name: 1 to `max_bytes` printable ASCII characters without spaces.
pub fn is_valid(name: &str, max_bytes: usize) -> bool {
    !name.is_empty() && name.len() <= max_bytes && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart() {
        let plain = ChannelName::parse("news");
        assert_eq!((plain.namespace, plain.is_private, plain.users), (None, false, None));
        let private = ChannelName::parse("$chat:room#7,8");
        assert_eq!((private.namespace, private.is_private, private.users), (Some("chat"), true, Some("7,8")));
        assert!(private.names_user("8") && !private.names_user("9") && !private.names_user(""));
    }

    #[test]
    fn names_are_short_printable_ascii() {
        assert!(is_valid("a:b#c", 255));
        for bad in ["", "with space", "caf\u{e9}", "a\nb", "a\0"] {
            assert!(!is_valid(bad, 255), "{bad:?}");
        }
        assert!(!is_valid("four", 3));
    }
}
