//! Owns the difference of two texts as people and `patch` read it: unified, with three lines around each change.
//! Touches nothing.

use std::fmt::Write;

/// Lines around a change.
const CONTEXT: usize = 3;
/// The largest table that is filled to find what two texts have in common: two texts of a thousand lines each that
/// have nothing in common at their ends.
const LARGEST: usize = 1 << 20;

/// A line of the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'t> {
    Same(&'t str),
    Gone(&'t str),
    New(&'t str),
}

/// The difference; empty if there is none. `names` stand in its head.
pub(super) fn difference(old: &str, new: &str, names: (&str, &str)) -> String {
    let steps = steps(old, new);
    let mut text = String::new();
    for hunk in hunks(&steps) {
        if text.is_empty() {
            let _ = writeln!(text, "--- {}\n+++ {}", names.0, names.1);
        }
        let count = |steps: &[Step], of_old: bool| {
            let counts = |step: &&Step| match step {
                Step::Same(_) => true,
                Step::Gone(_) => of_old,
                Step::New(_) => !of_old,
            };
            steps.iter().filter(counts).count()
        };
        let inside = &steps[hunk.0..hunk.1];
        let range = |of_old: bool| {
            let (before, length) = (count(&steps[..hunk.0], of_old), count(inside, of_old));
            // Of nothing the line before is named.
            let start = if length == 0 { before } else { before + 1 };
            format!("{start},{length}")
        };
        let _ = writeln!(text, "@@ -{} +{} @@", range(true), range(false));
        for step in inside {
            let (sign, line) = match step {
                Step::Same(line) => (' ', line),
                Step::Gone(line) => ('-', line),
                Step::New(line) => ('+', line),
            };
            let _ = write!(text, "{sign}{line}");
            if !line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    text
}

/// From where to where each hunk goes.
fn hunks(steps: &[Step]) -> Vec<(usize, usize)> {
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for (index, _) in steps
        .iter()
        .enumerate()
        .filter(|(_, step)| !matches!(step, Step::Same(_)))
    {
        let (start, end) = (
            index.saturating_sub(CONTEXT),
            (index + CONTEXT + 1).min(steps.len()),
        );
        match hunks.last_mut() {
            Some(last) if start <= last.1 => last.1 = end,
            _ => hunks.push((start, end)),
        }
    }
    hunks
}

/// All lines of both: those at the ends that both have, and between them a longest common subsequence.
fn steps<'t>(old: &'t str, new: &'t str) -> Vec<Step<'t>> {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(|(old, new)| old == new)
        .count();
    let mut steps: Vec<Step> = old[..head].iter().map(|line| Step::Same(line)).collect();
    middle(
        &old_rest[..old_rest.len() - tail],
        &new_rest[..new_rest.len() - tail],
        &mut steps,
    );
    steps.extend(old[old.len() - tail..].iter().map(|line| Step::Same(line)));
    steps
}

fn middle<'t>(old: &[&'t str], new: &[&'t str], steps: &mut Vec<Step<'t>>) {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > LARGEST {
        steps.extend(old.iter().map(|line| Step::Gone(line)));
        steps.extend(new.iter().map(|line| Step::New(line)));
        return;
    }
    // Length of the longest common subsequence of what is behind each pair of places.
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for at_old in (0..old.len()).rev() {
        for at_new in (0..new.len()).rev() {
            let here = at_old * width + at_new;
            longest[here] = if old[at_old] == new[at_new] {
                longest[here + width + 1] + 1
            } else {
                longest[here + 1].max(longest[here + width])
            };
        }
    }
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        let here = at_old * width + at_new;
        let more_old = at_old < old.len();
        let more_new = at_new < new.len();
        if more_old && more_new && old[at_old] == new[at_new] {
            steps.push(Step::Same(old[at_old]));
            (at_old, at_new) = (at_old + 1, at_new + 1);
        } else if more_old && (!more_new || longest[here + width] >= longest[here + 1]) {
            steps.push(Step::Gone(old[at_old]));
            at_old += 1;
        } else {
            steps.push(Step::New(new[at_new]));
            at_new += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n";
        let new = old.replace("5\n", "five\n").replace("12\n", "12");
        assert_eq!(
            difference(old, &new, ("a", "b")),
            "--- a\n+++ b\n@@ -2,11 +2,11 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n 10\n 11\n-12\n+12\n\\ No newline at end of \
             file\n"
        );
        assert_eq!(difference(old, old, ("a", "b")), "");
        assert_eq!(
            difference("", "x\n", ("/dev/null", "b")),
            "--- /dev/null\n+++ b\n@@ -0,0 +1,1 @@\n+x\n"
        );
        assert_eq!(
            difference("x\n", "", ("a", "/dev/null")),
            "--- a\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x\n"
        );
    }

    #[test]
    fn texts_with_nothing_in_common_take_no_table() {
        let many = |with: &str| (0..3_000).fold(String::new(), |text, n| text + with + &n.to_string() + "\n");
        let text = difference(&many("a"), &many("b"), ("a", "b"));
        assert_eq!(text.lines().count(), 2 + 1 + 6_000);
    }

    /// Carries a difference out, as `patch` does.
    fn patched(old: &str, difference: &str) -> String {
        let old: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut text, mut at) = (String::new(), 0);
        let lines: Vec<&str> = difference.split_inclusive('\n').skip(2).collect();
        for (index, line) in lines.iter().enumerate() {
            let content = &line[1..];
            let bare = lines.get(index + 1).is_some_and(|next| next.starts_with('\\'));
            let content = if bare {
                content.trim_end_matches('\n')
            } else {
                content
            };
            match line.as_bytes()[0] {
                b'@' => {
                    let numbers = line.split(' ').nth(1).unwrap()[1..].split_once(',').unwrap();
                    let (start, length): (usize, usize) =
                        (numbers.0.parse().unwrap(), numbers.1.parse().unwrap());
                    let start = if length == 0 { start } else { start - 1 };
                    text.push_str(&old[at..start].concat());
                    at = start;
                }
                b' ' | b'-' => {
                    assert_eq!(old[at], content);
                    at += 1;
                    if line.starts_with(' ') {
                        text.push_str(content);
                    }
                }
                b'+' => text.push_str(content),
                _ => {}
            }
        }
        text + &old[at..].concat()
    }

    proptest! {
        #[test]
        fn the_difference_makes_the_new_of_the_old(old in "([a-c]{0,2}\n){0,20}[a-c]?", new in "([a-c]{0,2}\n){0,20}[a-c]?") {
            let difference = difference(&old, &new, ("old", "new"));
            prop_assert_eq!(patched(&old, &difference), new);
        }
    }
}
