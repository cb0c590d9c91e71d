//! Owns what single values must look like, in the words of the product that reads them.
//! Touches nothing. Each check gives the rest of a sentence that begins with the key path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Nomad's and Consul's servers vote: an even number of them fails at the same count as one less.
pub(super) fn bootstrap_expect(number: i64) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(number @ (1 | 3 | 5 | 7 | 9)) => Ok(number),
        _ => Err(format!(
            "must be 1, 3, 5, 7 or 9, got {number}: an even number of servers bears no more failures"
        )),
    }
}

/// Consul datacenters: letters, digits, `_` and `-`, written in lower case because Consul lowers them.
pub(super) fn consul_datacenter(text: &str) -> Result<(), String> {
    let fits = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '_' | '-')
    };
    named(text, fits, 64, "lower-case letters, digits, `-` and `_`")
}

/// Nomad datacenters and regions: DNS-like here, though Nomad takes more, because names of services hold them.
/// `*` is a pattern in job files since Nomad 1.5 and refused by its agents.
pub(super) fn nomad_name(text: &str) -> Result<(), String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    named(text, fits, 64, "letters, digits, `-` and `_`")
}

/// Nomad node pools: `^[-a-zA-Z0-9_]{1,128}$`; `all` holds every node and cannot be joined.
pub(super) fn node_pool(text: &str) -> Result<(), String> {
    if text == "all" {
        return Err("must not be \"all\", which Nomad keeps for itself".to_owned());
    }
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    named(text, fits, 128, "letters, digits, `-` and `_`")
}

/// Keys of Nomad client metadata, as job files can name them: `${meta.KEY}`.
pub(super) fn meta_key(text: &str) -> Result<(), String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    named(text, fits, 128, "letters, digits, `-`, `_` and `.`")
}

/// Values that end in Nomad's HCL: `${` and `%{` would be templates there, control characters nothing good.
pub(super) fn plain_text(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    if text.contains("${") || text.contains("%{") {
        return Err("must not hold `${` or `%{`".to_owned());
    }
    Ok(())
}

/// EC2 tag keys and values: up to 128 and 256 characters; filters read `*` and `?` as patterns.
pub(super) fn tag(text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > longest {
        return Err(format!("must have 1 to {longest} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    if text.contains(['*', '?']) {
        return Err(format!(
            "must not hold `*` or `?`, which EC2 reads as patterns, got \"{text}\""
        ));
    }
    Ok(())
}

/// An address or host name, with a port or without; an IPv6 address with a port stands in brackets.
pub(super) fn join_address(text: &str) -> Result<(), String> {
    let wrong = || {
        Err(format!(
            "must be an address or a host name, with a port or without, got \"{text}\""
        ))
    };
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    if let Some((host, port)) = bracketed {
        return if host.parse::<Ipv6Addr>().is_ok() && is_port(port) {
            Ok(())
        } else {
            wrong()
        };
    }
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || character == '-')
            && !label.starts_with('-')
    };
    // Four numbers that are no address are a typing error, not a host name.
    let numeric = host
        .chars()
        .all(|character| character.is_ascii_digit() || character == '.');
    let host_fits = if numeric {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.split('.').all(label)
    };
    if host_fits && port.is_none_or(is_port) {
        return Ok(());
    }
    wrong()
}

/// 1 to 65535, without signs and leading zeros.
fn is_port(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && !text.starts_with('0') && text.parse::<u16>().is_ok()
}

/// An IP address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("must be an IP address, got \"{text}\""))
}

/// An AWS account.
pub(super) fn account(text: &str) -> Result<(), String> {
    let fits = text.len() == 12 && text.chars().all(|character| character.is_ascii_digit());
    fits.then_some(())
        .ok_or_else(|| format!("must be an account id of twelve digits in quotes, got \"{text}\""))
}

/// An AWS region: words and a number, as botocore's `partitions.json` has them.
pub(super) fn region(text: &str) -> Result<(), String> {
    let mut parts: Vec<&str> = text.split('-').collect();
    let number = parts.pop().unwrap_or_default();
    let word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() >= 2 && parts.iter().all(word) && numbered {
        return Ok(());
    }
    Err(format!("must be a region such as eu-central-1, got \"{text}\""))
}

/// A time: numbers with units.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("must be a time such as 90s, 5m or 1h30m, got \"{text}\"");
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let behind = rest.trim_start_matches(|character: char| character.is_ascii_digit());
        let digits = rest.len() - behind.len();
        let unit = ["ms", "s", "m", "h", "d"]
            .into_iter()
            .find_map(|unit| behind.strip_prefix(unit));
        rest = match unit {
            Some(behind) if (1..=9).contains(&digits) => behind,
            _ => return Err(wrong()),
        };
        parts += 1;
    }
    if parts == 0 {
        return Err(wrong());
    }
    humantime::parse_duration(text).map_err(|_| wrong())
}

/// Users: what useradd(8) takes.
pub(super) fn user_name(text: &str) -> Result<(), String> {
    let fits = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '_' | '-')
    };
    let starts = |character: char| character.is_ascii_lowercase() || character == '_';
    if !text.starts_with(starts) {
        return Err(format!(
            "must begin with a lower-case letter or `_`, got \"{text}\""
        ));
    }
    named(text, fits, 32, "lower-case letters, digits, `-` and `_`")
}

/// Paths that end in units, mounts and configurations: nothing in them that one of those reads in its own way.
pub(super) fn absolute_path(text: &str) -> Result<(), String> {
    let special = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '"' | '\'' | '$' | '%' | '\\' | '\u{feff}')
    };
    let segments = text.strip_prefix('/').map(|rest| rest.split('/'));
    let plain = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    if segments.is_some_and(|mut segments| segments.all(plain)) && !text.contains(special) {
        return Ok(());
    }
    Err(format!(
        "must be an absolute path without `.`, `..`, white space, quotes, `$`, `%` and `\\`, got \"{text}\""
    ))
}

/// Environment variables, as POSIX names them.
pub(super) fn environment_name(text: &str) -> Result<(), String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if text.starts_with(|character: char| character.is_ascii_digit()) {
        return Err(format!("must not begin with a digit, got \"{text}\""));
    }
    named(text, fits, 256, "letters, digits and `_`")
}

/// `StandardOutput=` of systemd.exec(5), but for what makes no sense for a service (`socket`, `fd:`).
pub(super) fn standard_stream(text: &str) -> Result<(), String> {
    const WORDS: [&str; 9] = [
        "inherit",
        "null",
        "tty",
        "journal",
        "kmsg",
        "journal+console",
        "kmsg+console",
        "syslog",
        "syslog+console",
    ];
    let file = ["file:", "append:", "truncate:"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    match file {
        Some(path) => absolute_path(path).map_err(|message| format!("names a file whose path {message}")),
        None if WORDS.contains(&text) => Ok(()),
        None => Err(format!(
            "must be {}, file:PATH, append:PATH or truncate:PATH, got \"{text}\"",
            WORDS.join(", ")
        )),
    }
}

/// Parameters of Systems Manager: at most 15 levels and 1011 characters.
pub(super) fn parameter_name(text: &str) -> Result<(), String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    let levels: Vec<&str> = text.strip_prefix('/').unwrap_or(text).split('/').collect();
    let level = |level: &&str| !level.is_empty() && level.chars().all(fits);
    if levels.len() <= 15 && text.len() <= 1011 && levels.iter().all(level) {
        return Ok(());
    }
    Err(format!(
        "must be the name of a parameter such as /cos/leader/node, got \"{text}\""
    ))
}

/// EBS volumes.
pub(super) fn volume_id(text: &str) -> Result<(), String> {
    resource(text, "vol-", &[8, 17], "a volume such as vol-0123456789abcdef0")
}

/// EFS file systems.
pub(super) fn file_system_id(text: &str) -> Result<(), String> {
    resource(
        text,
        "fs-",
        &[8, 17],
        "a file system such as fs-0123456789abcdef0",
    )
}

/// EFS access points.
pub(super) fn access_point_id(text: &str) -> Result<(), String> {
    resource(
        text,
        "fsap-",
        &[17],
        "an access point such as fsap-0123456789abcdef0",
    )
}

fn resource(text: &str, prefix: &str, digits: &[usize], what: &str) -> Result<(), String> {
    let hexadecimal = |rest: &str| rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match text.strip_prefix(prefix) {
        Some(rest) if digits.contains(&rest.len()) && hexadecimal(rest) => Ok(()),
        _ => Err(format!("must be {what}, got \"{text}\"")),
    }
}

/// Devices below /dev.
pub(super) fn device_name(text: &str) -> Result<(), String> {
    let fits = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '_' | '-' | '/')
    };
    match text.strip_prefix("/dev/") {
        Some(rest) if !rest.is_empty() && rest.chars().all(fits) => Ok(()),
        _ => Err(format!("must be a device such as /dev/sdf, got \"{text}\"")),
    }
}

/// Options of mount(8).
pub(super) fn mount_options(text: &str) -> Result<(), String> {
    let fits = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '=' | ':' | '/' | '+' | '-')
    };
    let option = |option: &str| !option.is_empty() && option.chars().all(fits);
    if text.split(',').all(option) {
        return Ok(());
    }
    Err(format!(
        "must be options of mount(8) with commas between them, got \"{text}\""
    ))
}

/// Host volumes of Nomad.
pub(super) fn volume_name(text: &str) -> Result<(), String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    named(text, fits, 128, "letters, digits, `-` and `_`")
}

/// Lifecycle hooks of Auto Scaling.
pub(super) fn hook_name(text: &str) -> Result<(), String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '/');
    named(text, fits, 255, "letters, digits, `-`, `_` and `/`")
}

/// A key of KMS.
/// Source: KMS API reference, `KeyId` of Encrypt.
pub(super) fn kms_key(text: &str) -> Result<(), String> {
    let wrong = || format!("must be the id, the ARN or the alias of a key of KMS, got \"{text}\"");
    let name = match text.strip_prefix("arn:") {
        None => text,
        Some(rest) => match rest.split(':').collect::<Vec<_>>()[..] {
            [partition, "kms", place, owner, name]
                if partition
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                    && !partition.is_empty()
                    && place
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                    && !place.is_empty()
                    && account(owner).is_ok() =>
            {
                name
            }
            _ => return Err(wrong()),
        },
    };
    if let Some(alias) = name.strip_prefix("alias/") {
        return hook_name(alias)
            .ok()
            .filter(|()| alias.len() <= 250)
            .ok_or_else(wrong);
    }
    let id = name.strip_prefix("key/").unwrap_or(name);
    let hexadecimal = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let fits = if let Some(id) = id.strip_prefix("mrk-") {
        hexadecimal(id, 32)
    } else {
        let parts: Vec<&str> = id.split('-').collect();
        let lengths = [8, 4, 4, 4, 12];
        parts.len() == lengths.len()
            && parts
                .iter()
                .zip(lengths)
                .all(|(part, length)| hexadecimal(part, length))
    };
    fits.then_some(()).ok_or_else(wrong)
}

fn named(text: &str, fits: impl Fn(char) -> bool, longest: usize, of: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > longest || !text.chars().all(fits) {
        return Err(format!("must be 1 to {longest} of {of}, got \"{text}\""));
    }
    Ok(())
}
