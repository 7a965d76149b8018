//! Things in a line, sorted by a number: what waits in a queue, what is in flight, what a consumer owes.
//!
//! Nearly everything joins at the end and leaves at the front, which is what this is fast at; what comes back to its
//! place and what leaves out of turn costs the length of a chunk. A thing costs its own size and little more, which is
//! what a million messages are kept in. What must stay true: chunks are in order and each is sorted, none but the only
//! one is empty, and no number is there twice.

use std::collections::VecDeque;

/// Things in one chunk, at most.
const CHUNK: usize = 128;

/// Neighbours with no more than this together become one chunk.
const SPARSE: usize = 48;

/// What a line is sorted by.
pub(super) trait Keyed {
    /// The number; it never changes.
    fn key(&self) -> u64;
}

/// A line.
#[derive(Debug)]
pub(super) struct Line<T> {
    chunks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line { chunks: VecDeque::new(), len: 0 }
    }
}

impl<T: Keyed> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a thing into its place; one that is there already stays, and the other is given back.
    pub(super) fn insert(&mut self, item: T) -> Result<(), T> {
        let key = item.key();
        if let Some(last) = self.chunks.back().and_then(VecDeque::back)
            && last.key() >= key
        {
            return self.insert_within(item);
        }
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push_back(item),
            // The first chunk grows with need: most queues are short.
            None => self.chunks.push_back(VecDeque::from([item])),
            Some(_) => {
                let mut chunk = VecDeque::with_capacity(CHUNK);
                chunk.push_back(item);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
        Ok(())
    }

    fn insert_within(&mut self, item: T) -> Result<(), T> {
        let key = item.key();
        let index = self.chunk_of(key).unwrap_or(0);
        let chunk = &mut self.chunks[index];
        let Err(at) = chunk.binary_search_by_key(&key, T::key) else { return Err(item) };
        chunk.insert(at, item);
        if chunk.len() > CHUNK {
            let rest = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, rest);
        }
        self.len += 1;
        Ok(())
    }

    /// The chunk that has `key`, if any has: the last one that begins at or before it.
    fn chunk_of(&self, key: u64) -> Option<usize> {
        let begins_by = |chunk: &VecDeque<T>| chunk.front().is_some_and(|first| first.key() <= key);
        // Nearly all that is asked for is in the first chunk.
        if self.chunks.get(1).is_none_or(|second| !begins_by(second)) {
            return self.chunks.front().filter(|chunk| begins_by(chunk)).map(|_| 0);
        }
        self.chunks.partition_point(begins_by).checked_sub(1)
    }

    fn find(&self, key: u64) -> Option<(usize, usize)> {
        let index = self.chunk_of(key)?;
        Some((index, self.chunks[index].binary_search_by_key(&key, T::key).ok()?))
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        let (index, at) = self.find(key)?;
        self.chunks[index].get(at)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (index, at) = self.find(key)?;
        self.chunks[index].get_mut(at)
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.chunks.front().and_then(VecDeque::front)
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let chunk = self.chunks.front_mut()?;
        let item = chunk.pop_front()?;
        if chunk.is_empty() && self.chunks.len() > 1 {
            self.chunks.pop_front();
        }
        self.len -= 1;
        Some(item)
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let (index, at) = self.find(key)?;
        let item = self.chunks[index].remove(at)?;
        self.len -= 1;
        let len = self.chunks[index].len();
        if len == 0 && self.chunks.len() > 1 {
            self.chunks.remove(index);
        } else if index > 0 && len + self.chunks[index - 1].len() <= SPARSE {
            let rest = self.chunks.remove(index).unwrap_or_default();
            self.chunks[index - 1].extend(rest);
            self.chunks[index - 1].shrink_to(SPARSE);
        }
        Some(item)
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// Those behind `key`, in order.
    pub(super) fn after(&self, key: u64) -> impl Iterator<Item = &T> {
        let index = self.chunk_of(key).unwrap_or(0);
        self.chunks.range(index.min(self.chunks.len())..).flatten().skip_while(move |item| item.key() <= key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Keyed for (u64, u32) {
        fn key(&self) -> u64 {
            self.0
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u16),
        Insert(u64),
        Remove(u64),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..400u16).prop_map(Step::Append),
            3 => (0..3000u64).prop_map(Step::Insert),
            6 => (0..3000u64).prop_map(Step::Remove),
            2 => Just(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn a_line_is_what_a_sorted_map_is(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut line, mut model, mut value) = (Line::default(), BTreeMap::new(), 0u32);
            for step in steps {
                value += 1;
                match step {
                    Step::Append(count) => {
                        for _ in 0..count {
                            let key = model.last_key_value().map_or(0, |(key, _)| key + 1);
                            prop_assert!(line.insert((key, value)).is_ok());
                            model.insert(key, value);
                        }
                    }
                    Step::Insert(key) => {
                        let is_fresh = !model.contains_key(&key);
                        prop_assert_eq!(line.insert((key, value)).is_ok(), is_fresh);
                        model.entry(key).or_insert(value);
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(line.get(key).copied(), model.get(&key).map(|value| (key, *value)));
                        prop_assert_eq!(line.remove(key), model.remove(&key).map(|value| (key, value)));
                    }
                    Step::Pop => prop_assert_eq!(line.pop_front(), model.pop_first()),
                }
                prop_assert_eq!(line.len(), model.len());
                prop_assert!(line.chunks.len() <= 1 || line.chunks.iter().all(|chunk| !chunk.is_empty()));
            }
            for from in [0, 5, 1000, 5000] {
                let behind: Vec<_> = line.after(from).copied().collect();
                prop_assert_eq!(behind, model.range(from + 1..).map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            }
            let all: Vec<_> = line.iter().copied().collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}
