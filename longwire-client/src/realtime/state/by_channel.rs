//! Things by their channel, in the channels' order, in as little memory as one thing needs: most clients have one.
//!
//! A sorted list: found by halving, and moved when one enters or leaves in between. What must stay true: sorted, and each
//! channel once.

use std::sync::Arc;

/// Things by their channel.
#[derive(Debug)]
pub(super) struct ByChannel<T>(Vec<(Arc<str>, T)>);

impl<T> Default for ByChannel<T> {
    fn default() -> ByChannel<T> {
        ByChannel(Vec::new())
    }
}

impl<T> ByChannel<T> {
    fn find(&self, channel: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(of, _)| (**of).cmp(channel))
    }

    pub(super) fn contains_key(&self, channel: &str) -> bool {
        self.find(channel).is_ok()
    }

    pub(super) fn get(&self, channel: &str) -> Option<&T> {
        self.get_key_value(channel).map(|(_, value)| value)
    }

    pub(super) fn get_key_value(&self, channel: &str) -> Option<(&Arc<str>, &T)> {
        self.find(channel).ok().map(|at| (&self.0[at].0, &self.0[at].1))
    }

    pub(super) fn get_mut(&mut self, channel: &str) -> Option<&mut T> {
        self.find(channel).ok().map(|at| &mut self.0[at].1)
    }

    /// Adds one; what the channel had before is gone.
    pub(super) fn insert(&mut self, channel: Arc<str>, value: T) {
        match self.find(&channel) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (channel, value));
            }
        }
    }

    pub(super) fn remove(&mut self, channel: &str) -> Option<T> {
        self.find(channel).ok().map(|at| self.0.remove(at).1)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|(channel, _)| channel)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut T)> {
        self.0.iter_mut().map(|(channel, value)| (&*channel, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.0.into_iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_is_there_once_and_in_order() {
        let mut things = ByChannel::default();
        for (channel, value) in [("m", 1), ("a", 2), ("z", 3), ("m", 4)] {
            things.insert(Arc::from(channel), value);
        }
        assert_eq!(things.keys().map(|channel| &**channel).collect::<Vec<_>>(), ["a", "m", "z"]);
        assert_eq!((things.get("m"), things.get("b")), (Some(&4), None));
        assert_eq!(things.remove("a"), Some(2));
        *things.get_mut("z").unwrap() += 1;
        assert_eq!(things.into_values().collect::<Vec<_>>(), [4, 4]);
    }
}
