//! A set of numbers that are close together: one bit each.

/// Grows to the greatest number that is put in.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    /// False when it was there already.
    pub fn insert(&mut self, n: u64) -> bool {
        let (word, bit) = ((n / 64) as usize, 1 << (n % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(fresh);
        fresh
    }

    pub fn contains(&self, n: u64) -> bool {
        self.words.get((n / 64) as usize).is_some_and(|word| word & (1 << (n % 64)) != 0)
    }

    pub fn len(&self) -> u64 {
        self.count
    }

    /// Stretches from 1 to `last`, both ends included, in which no number is there.
    pub fn gaps(&self, last: u64) -> Vec<(u64, u64)> {
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        let mut n = 1;
        while n <= last {
            if n % 64 == 0 && self.words.get((n / 64) as usize) == Some(&u64::MAX) {
                n += 64;
                continue;
            }
            if !self.contains(n) {
                match gaps.last_mut().filter(|gap| gap.1 + 1 == n) {
                    Some(gap) => gap.1 = n,
                    None => gaps.push((n, n)),
                }
            }
            n += 1;
        }
        gaps
    }
}
