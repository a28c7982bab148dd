//! The simulation's randomness: small, repeatable and even. It protects nothing.
//!
//! Owns: the generator. Knows nothing of: what is decided with it.

/// SplitMix64 (Steele, Lea, Flood 2014): from one seed, for ever.
#[derive(Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// The generator of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is small: the bias of the remainder does not matter here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("a number below a usize")
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn flip(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let (index, bit) = (self.index(bytes.len()), self.below(8));
        if let Some(byte) = bytes.get_mut(index) {
            *byte ^= 1 << bit;
        }
    }
}
