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

/// Chance, the same for the same seed.
pub(crate) fn dice(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}
