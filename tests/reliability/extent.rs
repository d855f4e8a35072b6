//! How long a test goes on: a short form for every run of the tests, and the full one for figures.

/// Whether the full length was asked for (`NETLOOM_RELIABILITY=full`, as `make reliability` sets it).
pub(crate) fn full() -> bool {
    std::env::var("NETLOOM_RELIABILITY").is_ok_and(|word| word == "full")
}

/// The number for this run.
pub(crate) fn of<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// A seed for what is chosen at random: `NETLOOM_SEED`, else the clock. Say it in every failure, so that it can be had again.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("NETLOOM_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    })
}

/// Numbers at random, the same for the same seed (splitmix64, by Sebastiano Vigna, public domain).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
