//! Owns how the old scripts' command lines are read: flags by a table, none of which takes what belongs to the next.
//! Touches nothing.

use std::fmt::Write;

/// What stands behind a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// Nothing; but the old script took whatever came next, so that people wrote `true` or `false` there.
    NothingOrBoolean,
    /// A value, in words for the usage.
    Value(&'static str),
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    pub(super) help: &'static str,
}

pub(super) const fn flag(name: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        takes: Takes::Nothing,
        help,
    }
}

pub(super) const fn value(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        takes: Takes::Value(value),
        help,
    }
}

/// Flags that COS adds to both.
pub(super) const OWN: [Flag; 3] = [
    flag("--dry-run", "Print what would change, and change nothing."),
    flag(
        "--print-config",
        "Print the NodeConfig that says the same as these flags, and do nothing.",
    ),
    flag("--help", "Print this."),
];

/// Flags as they were given.
#[derive(Debug, Default)]
pub(super) struct Given(Vec<(&'static str, String)>);

impl Given {
    /// Whether a flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    /// The value of a flag; the last one counts, as it did.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a flag that may be repeated.
    pub(super) fn values<'g>(&'g self, name: &'g str) -> impl Iterator<Item = &'g str> {
        let found = self.0.iter().filter(move |(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Those of some flags that were given, each once.
    pub(super) fn among(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.has(name)).collect()
    }
}

/// Reads a command line. The error says what is wrong with it.
pub(super) fn parse(flags: &[Flag], arguments: &[String]) -> Result<Given, String> {
    let known = |text: &str| flags.iter().chain(&OWN).find(|flag| flag.name == text);
    let mut given = Given::default();
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        let flag = known(argument).ok_or_else(|| format!("unrecognized argument: {argument}"))?;
        let value = match flag.takes {
            Takes::Nothing => "",
            Takes::NothingOrBoolean => rest
                .next_if(|next| matches!(*next, "true" | "false"))
                .unwrap_or_default(),
            Takes::Value(_) => match rest.next() {
                Some(value) if !value.is_empty() && known(value).is_none() => value,
                _ => return Err(format!("{argument} needs a value")),
            },
        };
        given.0.push((flag.name, value.to_owned()));
    }
    Ok(given)
}

/// The usage of a command.
pub(super) fn usage(name: &str, about: &str, flags: &[Flag], example: &str) -> String {
    let mut text = format!("{about}\n\nUsage: {name} [FLAGS]\n\n");
    for flag in flags.iter().chain(&OWN) {
        let left = match flag.takes {
            Takes::Value(value) => format!("{} {value}", flag.name),
            _ => flag.name.to_owned(),
        };
        let _ = writeln!(text, "  {left:<46} {}", flag.help);
    }
    let _ = writeln!(text, "\nExample: {example}");
    text
}

/// Assignments as a unit's `Environment=` takes them: words with `=`, in quotes or with quotes in them.
pub(super) fn environment(text: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("--environment needs KEY=\"value\", got {text}");
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word
                .get_or_insert_default()
                .extend(characters.next().or(Some('\\'))),
            '"' | '\'' if quote == Some(character) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ' ' | '\t' if quote.is_none() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if quote.is_some() || words.is_empty() {
        return Err(wrong());
    }
    let pair = |word: String| {
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        Ok((key.to_owned(), value.to_owned()))
    };
    words.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLAGS: [Flag; 3] = [
        flag("--server", ""),
        value("--user", "NAME", ""),
        Flag {
            name: "--odd",
            takes: Takes::NothingOrBoolean,
            help: "",
        },
    ];

    fn read(line: &str) -> Result<Given, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&FLAGS, &arguments)
    }

    #[test]
    fn a_flag_without_value_leaves_the_next_argument_alone() {
        let given = read("--odd --server --user a --user b").unwrap();
        assert!(given.has("--odd") && given.has("--server"));
        assert_eq!(given.value("--user"), Some("b"));
        assert_eq!(given.values("--user").collect::<Vec<_>>(), ["a", "b"]);
        let given = read("--odd false --server").unwrap();
        assert!(given.has("--odd") && given.has("--server"));
    }

    #[test]
    fn what_is_no_flag_is_refused() {
        for (line, message) in [
            ("--sever", "unrecognized argument: --sever"),
            ("server", "unrecognized argument: server"),
            ("--server true", "unrecognized argument: true"),
            ("--user", "--user needs a value"),
            ("--user --server", "--user needs a value"),
            ("--user=a", "unrecognized argument: --user=a"),
        ] {
            assert_eq!(read(line).unwrap_err(), message);
        }
        assert_eq!(
            parse(&FLAGS, &["--user".to_owned(), String::new()]).unwrap_err(),
            "--user needs a value"
        );
    }

    #[test]
    fn an_assignment_is_read_as_a_unit_reads_it() {
        let pairs = |text: &str| {
            environment(text).map(|pairs| {
                let pairs = pairs.into_iter().map(|(key, value)| format!("{key}={value}"));
                pairs.collect::<Vec<_>>()
            })
        };
        for (text, expected) in [
            ("K=v", vec!["K=v"]),
            ("K=\"a b\"", vec!["K=a b"]),
            ("\"K=a b\"", vec!["K=a b"]),
            ("'K=a \"b\"' L=c", vec!["K=a \"b\"", "L=c"]),
            ("K=a\\\"b", vec!["K=a\"b"]),
            ("K=", vec!["K="]),
            ("K=a=b", vec!["K=a=b"]),
        ] {
            assert_eq!(pairs(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "K", "K=\"a", "  "] {
            assert!(pairs(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_or_refused(arguments in prop::collection::vec("(--server|--user|--odd|\\PC{0,8})", 0..8)) {
            let _ = parse(&FLAGS, &arguments);
        }

        #[test]
        fn any_assignment_is_read_or_refused(text in "[A-Z=\"' \\\\a\t]{0,20}") {
            let _ = environment(&text);
        }
    }
}
