//! Owns reading of a certificate what a doctor must know: when it is valid and whom it names. DER as X.690 has it, the
//! fields of RFC 5280 up to the subject; nothing is verified. Touches nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// First moment.
    pub(super) not_before: SystemTime,
    /// Last moment.
    pub(super) not_after: SystemTime,
    /// Common name, if it has one.
    pub(super) name: Option<String>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, constructed: the version of a certificate.
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The certificates in a PEM text, each readable or not; other blocks are passed over.
pub(super) fn certificates(pem: &str) -> Vec<Option<Certificate>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split(BEGIN).skip(1);
    blocks
        .map(|block| {
            let (body, _) = block.split_once(END)?;
            let body: String = body.split_whitespace().collect();
            read(&STANDARD.decode(body).ok()?)
        })
        .collect()
}

/// Reads the outer parts of a certificate; none if it is none.
fn read(der: &[u8]) -> Option<Certificate> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, VERSION) {
        fields = rest;
    }
    let (_serial, fields) = expect(fields, INTEGER)?;
    let (_algorithm, fields) = expect(fields, SEQUENCE)?;
    let (_issuer, fields) = expect(fields, SEQUENCE)?;
    let (validity, fields) = expect(fields, SEQUENCE)?;
    let (not_before, validity) = time(validity)?;
    let (not_after, _) = time(validity)?;
    let (subject, _) = expect(fields, SEQUENCE)?;
    Some(Certificate {
        not_before,
        not_after,
        name: common_name(subject),
    })
}

/// A value of this tag and what comes after it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, value, rest) = element(bytes)?;
    (found == tag).then_some((value, rest))
}

/// The first element: tag, value, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = bytes else {
        return None;
    };
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(*short), rest),
        // The number of bytes of the length; a certificate needs no more than three.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |length, digit| length << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}

fn common_name(mut subject: &[u8]) -> Option<String> {
    while let Some((set, rest)) = expect(subject, SET) {
        let (attribute, _) = expect(set, SEQUENCE)?;
        let (kind, value) = expect(attribute, OBJECT)?;
        if kind == COMMON_NAME {
            let (_, value, _) = element(value)?;
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        subject = rest;
    }
    None
}

/// `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` after.
fn time(bytes: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (tag, text, rest) = element(bytes)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, text) = match tag {
        UTC_TIME => {
            let year: i64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let mut numbers = [0_i64; 5];
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = text.get(2 * index..2 * index + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = numbers;
    let whole =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !whole || text.len() != 10 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)?
    } else {
        UNIX_EPOCH.checked_add(distance)?
    };
    Some((moment, rest))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: whole years begin in March, so that a leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    fn made(not_before: (i32, u8, u8), not_after: (i32, u8, u8)) -> String {
        let mut parameters = rcgen::CertificateParams::new(vec!["server.eu.consul".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(not_before.0, not_before.1, not_before.2);
        parameters.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        parameters
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "COS");
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "server.eu.consul");
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn certificates_of_a_maker_are_read() {
        for (from, to) in [
            ((2024, 2, 29), (2026, 3, 1)),
            ((1999, 12, 31), (2049, 12, 31)),
            ((2025, 1, 1), (2050, 1, 1)),
            ((1970, 1, 1), (2400, 2, 29)),
        ] {
            let pem = made(from, to);
            let all = certificates(&pem);
            let [Some(read)] = &all[..] else {
                panic!("{pem}");
            };
            let text = |(year, month, day)| at(&format!("{year}-{month:02}-{day:02}T00:00:00Z"));
            assert_eq!((read.not_before, read.not_after), (text(from), text(to)));
            assert_eq!(read.name.as_deref(), Some("server.eu.consul"));
        }
    }

    #[test]
    fn several_are_read_and_keys_are_passed_over() {
        let one = made((2024, 1, 1), (2025, 1, 1));
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(
            certificates(&format!("{key}{one}text\n{one}"))
                .iter()
                .flatten()
                .count(),
            2
        );
        assert!(certificates(&key).is_empty());
        let broken = one.replace("MII", "AAA");
        assert!(certificates(&broken).contains(&None));
    }

    proptest! {
        #[test]
        fn days_are_those_of_the_calendar(seconds in 0_u64..253_402_300_799) {
            let told = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
            let number = |range: std::ops::Range<usize>| told[range].parse::<i64>().unwrap();
            prop_assert_eq!(days(number(0..4), number(5..7), number(8..10)), i64::try_from(seconds / 86_400).unwrap());
        }

        #[test]
        fn nothing_makes_the_reader_panic(place in 0_usize..400, byte in any::<u8>(), cut in 0_usize..600) {
            let der: Vec<u8> = {
                let pem = made((2024, 1, 1), (2025, 1, 1));
                let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
                STANDARD.decode(body).unwrap()
            };
            let mut changed = der.clone();
            if let Some(target) = changed.get_mut(place) {
                *target = byte;
            }
            changed.truncate(cut);
            let _ = read(&changed);
        }
    }
}
