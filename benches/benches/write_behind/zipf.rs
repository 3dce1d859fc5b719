//! Which keys are written: a few very often, most hardly ever.

/// How many keys there are.
pub(crate) const KEYS: u32 = 100_000;
const EXPONENT: f64 = 0.99;

/// A long row of keys, drawn once: drawing must not be what is measured.
pub(crate) struct Zipf(Vec<u32>);

impl Zipf {
    pub(crate) fn new(seed: u64) -> Self {
        let mut reached = 0.0;
        let cumulated: Vec<f64> = (1..=KEYS)
            .map(|rank| {
                reached += f64::from(rank).powf(-EXPONENT);
                reached
            })
            .collect();
        let mut state = seed;
        let draw = |_| {
            // SplitMix64 (Steele et al., 2014).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut bits = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
            let share = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
            let rank = cumulated.partition_point(|sum| *sum < share * reached);
            u32::try_from(rank).expect("a rank")
        };
        Self((0..1_u32 << 20).map(draw).collect())
    }

    pub(crate) fn key(&self, n: u64) -> u64 {
        u64::from(self.0[usize::try_from(n).expect("64 bits") % self.0.len()])
    }
}
