//! Every target, with damaged inputs, and with inputs that lead nowhere but down.

use std::env;
use std::time::Instant;

use crate::{runner, targets};

/// Inputs in an ordinary run, over all targets.
const COUNT: u64 = 60_000;

/// The damage of an ordinary run.
const SEED: u64 = 20_261_125;

/// A target with fewer inputs is not judged by how many it takes.
const ENOUGH: u64 = 500;

fn number(variable: &str, otherwise: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.replace('_', "").parse().unwrap(),
        Err(_) => otherwise,
    }
}

#[test]
fn whatever_comes_from_outside_is_read_or_refused() {
    let (count, seed) = (number("COS_FUZZ_COUNT", COUNT), number("COS_FUZZ_SEED", SEED));
    let wanted = env::var("COS_FUZZ_TARGET").unwrap_or_default();
    let mut targets = targets::all();
    targets.retain(|target| target.name.contains(&wanted));
    assert!(!targets.is_empty(), "no target is called {wanted}");
    println!("seed {seed}, {count} inputs over {} targets", targets.len());
    let begin = Instant::now();
    let tallies = runner::run(targets, count, seed);
    println!(
        "{:<36} {:>10} {:>10} {:>7} {:>10} {:>9}",
        "target", "inputs", "accepted", "%", "slowest ms", "seconds"
    );
    for tally in &tallies {
        println!(
            "{:<36} {:>10} {:>10} {:>7.1} {:>10.2} {:>9.1}",
            tally.name,
            tally.inputs,
            tally.accepted,
            tally.share(),
            tally.slowest.as_secs_f64() * 1000.0,
            tally.took.as_secs_f64()
        );
    }
    let inputs: u64 = tallies.iter().map(|tally| tally.inputs).sum();
    println!("{inputs} inputs in {:.1} s", begin.elapsed().as_secs_f64());
    for tally in &tallies {
        if let Some(input) = &tally.panicked {
            panic!(
                "{} panicked at input {} of seed {seed}: {input}",
                tally.name, tally.inputs
            );
        }
        // Who takes nothing, or everything, was not really tried.
        let share = tally.share();
        assert!(
            tally.inputs < ENOUGH || (1.0..=99.5).contains(&share),
            "{} accepts {share:.1} %: are its samples good, and does the damage reach it?",
            tally.name
        );
    }
}

#[test]
fn a_way_down_without_an_end_is_read_or_refused() {
    // Deeper than any stack, if a reader went down one frame for each.
    const DEPTH: usize = 100_000;
    let ways = [
        "[", "{\"a\":", "<a>", "- ", "{a: ", "? ", "\n ", "&a [*a, ", "((", "--B\n", "<!--", "%",
    ];
    for mut target in targets::all() {
        for way in ways {
            (target.read)(way.repeat(DEPTH).as_bytes());
            let sample = &target.samples[0];
            let within = [&sample[..sample.len() / 2], way.repeat(DEPTH).as_bytes()].concat();
            (target.read)(&within);
        }
    }
}
