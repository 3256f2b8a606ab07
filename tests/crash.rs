//! `kill -9` at any moment: a real build is killed over and over, resumed until it is done, and what it publishes is
//! compared with what an uninterrupted build publishes.
//!
//! INTENDEX_CRASHES says how many kills (default 12), INTENDEX_CRASH_SEED repeats the choices of an earlier run. The
//! moments are those of a clock, so a seed repeats what was chosen, not what was hit.

mod common;
#[path = "support/crash/mod.rs"]
mod harness;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{Crashes, Ended, Kept, Moment, Reference, Round, reference::Uninterrupted, watch};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A short run is part of `make test`; what its kills hit is as various, as the shards are as many.
const DOCUMENTS: [usize; 2] = [24, 60];

/// Most kills in one round from nothing to a publication, so that rounds get to their end too.
const KILLS_PER_ROUND: usize = 10;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

#[test]
fn a_killed_build_publishes_what_an_uninterrupted_one_does() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = from_env("INTENDEX_CRASH_SEED").unwrap_or(now.as_secs());
    let kills = from_env("INTENDEX_CRASHES").unwrap_or(12) as usize;
    println!("INTENDEX_CRASH_SEED={seed} INTENDEX_CRASHES={kills}");
    let clock = Instant::now();
    let documents = DOCUMENTS[usize::from(kills > 50)];
    let (place, reference) = Reference::build(documents);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut crashes = Crashes::default();
    for n in 0.. {
        let left = kills.saturating_sub(crashes.kills());
        if left == 0 {
            break;
        }
        // Most moments of a build are in its stages, but the delicate ones come after: some rounds begin there.
        let name = format!("out-{n}");
        let round = match n % 3 {
            0 => Round::new(&place, &name),
            1 => Round::after_stages(&place, &name),
            _ => Round::update(&place, &name),
        };
        let left = left.min(kills.div_ceil(3));
        let kept = match n % 3 {
            0 => any_moment(&round, &reference.fresh, left, &mut random, &mut crashes),
            1 => publication(&round, left, &mut random, &mut crashes),
            _ => any_moment(&round, &reference.update, left, &mut random, &mut crashes),
        };
        round.finish_and_compare(&reference, &kept, &mut crashes);
        assert!(n < 20 * kills, "kills come too late: {crashes}");
    }
    println!(
        "{crashes}\n{documents} documents: an uninterrupted build takes {:.1} s, an update {:.1} s; all took {:.0} s",
        reference.fresh.whole.as_secs_f64(),
        reference.update.whole.as_secs_f64(),
        clock.elapsed().as_secs_f64()
    );
}

/// Kills at random moments of the whole build.
fn any_moment(
    round: &Round,
    times: &Uninterrupted,
    left: usize,
    random: &mut ChaCha8Rng,
    crashes: &mut Crashes,
) -> Kept {
    let mut kept = Kept::default();
    let mut kills = 0;
    while kills < left.min(KILLS_PER_ROUND) && !round.is_published() {
        let seconds = match kills {
            0 => random.random_range(0.0..1.0) * times.whole.as_secs_f64(),
            _ => later(times, random),
        };
        match round.run_until(Moment::After(Duration::from_secs_f64(seconds))) {
            Ended::Killed => kills += 1,
            Ended::ByItself => break,
        }
        crashes.count(round);
        kept.check_and_extend(round);
    }
    kept
}

/// The moment of a kill after the first: mostly behind what a start takes, else nothing would ever be done.
fn later(times: &Uninterrupted, random: &mut ChaCha8Rng) -> f64 {
    let (start, whole) = (times.start.as_secs_f64(), times.whole.as_secs_f64());
    match random.random_bool(0.15) {
        true => random.random_range(0.0..1.0) * start,
        false => start + random.random_range(0.0..0.35) * (whole - start).max(0.1),
    }
}

/// Kills when something appears in the folder that a build writes behind its stages.
fn publication(round: &Round, left: usize, random: &mut ChaCha8Rng, crashes: &mut Crashes) -> Kept {
    let mut kept = Kept::default();
    kept.check_and_extend(round);
    let mut first = 0;
    let mut kills = 0;
    // Later moments only: what has appeared once does so again only where it was not whole.
    while kills < left && first < watch::EVENTS.len() && !round.is_published() {
        let event = random.random_range(first..watch::EVENTS.len());
        let delay = random.random_range(0..3000) * u64::from(random.random_bool(0.5));
        first = event + usize::from(random.random_bool(0.7));
        match round.run_until(Moment::Event(event, Duration::from_micros(delay))) {
            Ended::Killed => kills += 1,
            Ended::ByItself => break,
        }
        crashes.count(round);
        kept.check_and_extend(round);
    }
    kept
}
