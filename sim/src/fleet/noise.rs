//! Random numbers that stay the same for ever: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
//! generators"), because the streams of a crate may change with its version and recorded runs must not.

#[derive(Clone, Debug)]
pub struct Noise {
    state: u64,
}

impl Noise {
    /// An independent stream for each (seed, purpose, number).
    pub fn new(seed: u64, purpose: u64, number: u64) -> Noise {
        let mut noise = Noise { state: seed };
        noise.state = noise.next() ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        noise.state = noise.next() ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03);
        noise
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 (inclusive) to 1 (exclusive).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Nearly normal with mean 0 and standard deviation 1, never beyond ±3.47: the sum of four uniform numbers.
    pub fn normal(&mut self) -> f64 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 1.732_050_807_568_877_2
    }

    /// Whether something with this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// A number of seconds around `mean`, from a tenth of it to its double: enough for stops and repairs.
    pub fn around(&mut self, mean: f64) -> f64 {
        mean * self.between(0.1, 1.9)
    }
}
