//! The JSON Schema and the reader are made of one definition and say the same, judged by a validator that knows
//! nothing of it. What only the reader knows stands in `DIFFERENCES`.

mod pool;

use std::collections::BTreeMap;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::node_config::NodeConfig;
use super::record::{Read, Reader};
use super::schema::json_schema;
use super::tree;
use super::values::TEXTS;
use crate::node::sources::{Document, Origin};
use pool::POOL;

/// What differs on purpose. None of these is in the documents and texts that are compared.
const DIFFERENCES: [&str; 4] = [
    "a key with nothing behind it (null) is as good as absent to the reader, so that Terraform's jsonencode need not \
     leave it out; to the schema it has the wrong type",
    "3.0 is a whole number to JSON Schema; the reader wants 3",
    "an IPv6 address among the addresses to join is only looked at by its characters in the schema: its grammar as a \
     pattern would be of six hundred",
    "what several keys say together (roles, contradictions, a number of parameters) is the reader's alone",
];

fn pool() -> Vec<String> {
    let mut pool: Vec<String> = POOL.iter().map(|text| (*text).to_owned()).collect();
    for length in [31, 32, 33, 64, 65, 128, 129, 255, 256, 257, 1011, 1012] {
        pool.push("a".repeat(length));
        pool.push("é".repeat(length));
        pool.push(format!("/{}", "a".repeat(length)));
        pool.push(format!("ssm:{}", "a".repeat(length)));
    }
    pool
}

/// Chance that can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit
    }

    fn one<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    /// A text with something put in, taken out or changed.
    fn mutated(&mut self, text: &str) -> String {
        const CHARACTERS: &[char] = &[
            'a', 'Z', '0', '9', '-', '_', '.', '/', ':', ' ', ',', '=', '+', '[', ']', '*', '?', '"', '\'',
            '$', '%', '{', '\\', '\n', '\t', '\u{0}', '\u{7f}', '\u{9f}', '\u{a0}', '\u{2028}', '\u{feff}',
            'é', 's', 'm',
        ];
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(3) {
            let at = self.below(characters.len() + 1);
            let character = *self.one(CHARACTERS);
            match (self.below(3), at < characters.len()) {
                (0, true) => drop(characters.remove(at)),
                (1, true) => characters[at] = character,
                _ => characters.insert(at, character),
            }
        }
        characters.into_iter().collect()
    }
}

fn validator(schema: &Json) -> Validator {
    jsonschema::draft7::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

#[test]
fn every_pattern_takes_what_its_check_takes() {
    let pool = pool();
    for (name, pattern, check) in TEXTS {
        let validator = validator(&json!({ "type": "string", "pattern": pattern }));
        let mut chance = Chance(0x5eed_0005);
        let good: Vec<&String> = pool.iter().filter(|text| check(text).is_ok()).collect();
        assert!(!good.is_empty(), "{name}: nothing in the pool is good");
        let mutated: Vec<String> = (0..3000)
            .map(|_| {
                let text = (*chance.one(&good)).clone();
                chance.mutated(&text)
            })
            .collect();
        for text in pool.iter().chain(&mutated) {
            let (by_pattern, by_check) = (validator.is_valid(&json!(text)), check(text).is_ok());
            // See DIFFERENCES.
            let loose = *name == "JoinAddress" && text.matches(':').count() > 1;
            if !loose || by_check {
                assert_eq!(by_pattern, by_check, "{name}: {text:?} against {pattern}");
            }
        }
    }
}

#[test]
fn times_and_secrets_take_what_their_patterns_take() {
    fn compare<T: Read>(name: &str) {
        let validator = validator(&T::schema());
        let mut chance = Chance(0x5eed_0006);
        let pool = pool();
        let mut all = pool.clone();
        all.extend((0..5000).map(|_| {
            let text = chance.one(&pool).clone();
            chance.mutated(&text)
        }));
        let mut good = 0;
        for text in all {
            let node = node(&json!([text]));
            let tree::Value::List(list) = node.value else {
                panic!("no list")
            };
            let read = T::read(&list[0], "x", &mut Reader::default()).is_some();
            good += usize::from(read);
            assert_eq!(validator.is_valid(&json!(text)), read, "{name}: {text:?}");
        }
        assert!(good > 0, "{name}");
    }
    compare::<std::time::Duration>("time");
    compare::<super::values::SecretSource>("secret");
    compare::<std::net::IpAddr>("address");
}

fn node(document: &Json) -> tree::Node {
    // YAML wants characters escaped that JSON takes as they are.
    let escaped = |character: char| match character {
        '\u{7f}'..='\u{9f}' | '\u{feff}' => format!("\\u{:04x}", u32::from(character)),
        other => other.to_string(),
    };
    let bytes = document
        .to_string()
        .chars()
        .map(escaped)
        .collect::<String>()
        .into_bytes();
    tree::parse(&Document {
        origin: Origin::UserData,
        bytes,
    })
    .unwrap_or_else(|fault| panic!("{fault}: {document}"))
}

/// Makes documents by the schema, most of them nearly right.
struct Maker {
    chance: Chance,
    pool: Vec<String>,
    /// Good texts of each pattern.
    good: BTreeMap<String, Vec<String>>,
}

impl Maker {
    fn value(&mut self, schema: &Json) -> Json {
        if self.chance.below(60) == 0 {
            return self.junk();
        }
        if let Some(words) = schema["enum"].as_array() {
            return self.chance.one(words).clone();
        }
        if let Some(choices) = schema["anyOf"]
            .as_array()
            .filter(|choices| choices[0]["format"].is_null())
        {
            let choice = self.chance.one(choices).clone();
            return self.value(&choice);
        }
        match schema["type"].as_str() {
            Some("boolean") => json!(self.chance.below(2) == 0),
            Some("integer") => {
                let (low, high) = (
                    schema["minimum"].as_i64().unwrap(),
                    schema["maximum"].as_i64().unwrap(),
                );
                let edge = i64::from(self.chance.below(20) == 0);
                json!(*self.chance.one(&[low - edge, low, high, high + edge]))
            }
            Some("string") => self.text(schema),
            Some("array") => {
                let least = usize::try_from(schema["minItems"].as_u64().unwrap_or(0)).unwrap();
                let length = least + self.chance.below(3);
                let length = if self.chance.below(30) == 0 { 0 } else { length };
                (0..length).map(|_| self.value(&schema["items"])).collect()
            }
            _ => self.object(schema),
        }
    }

    fn text(&mut self, schema: &Json) -> Json {
        let pattern = schema["pattern"].as_str().unwrap_or("an address");
        let good = self
            .good
            .get(pattern)
            .unwrap_or_else(|| panic!("no good text for {pattern}"));
        if self.chance.below(25) > 0 {
            return json!(self.chance.one(good));
        }
        json!(self.chance.one(&self.pool))
    }

    fn object(&mut self, schema: &Json) -> Json {
        let mut map = Map::new();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            let among = if required.contains(&key.as_str()) { 49 } else { 10 };
            if self.chance.below(50) <= among && !(among == 49 && self.chance.below(60) == 0) {
                map.insert(key.clone(), self.value(value));
            }
        }
        if schema["additionalProperties"].is_object() {
            let pattern = schema["propertyNames"]["pattern"].as_str().unwrap().to_owned();
            for _ in 0..self.chance.below(3) {
                let bad = self.chance.below(20) == 0;
                let key = self
                    .chance
                    .one(if bad { &self.pool } else { &self.good[&pattern] })
                    .clone();
                map.insert(key, self.value(&schema["additionalProperties"]));
            }
        } else if self.chance.below(60) == 0 {
            map.insert("datacentre".to_owned(), json!("x"));
        }
        Json::Object(map)
    }

    fn junk(&mut self) -> Json {
        let junk = [
            json!(true),
            json!(7),
            json!(-1),
            json!(0.5),
            json!("text"),
            json!([]),
            json!({}),
            json!(["a"]),
            json!({"a": 1}),
        ];
        self.chance.one(&junk).clone()
    }
}

/// Every pattern that a schema has, and the addresses, which have none.
fn patterns(schema: &Json, all: &mut BTreeMap<String, Json>) {
    match schema {
        Json::Object(map) => {
            if let Some(pattern) = map.get("pattern").and_then(Json::as_str) {
                all.insert(
                    pattern.to_owned(),
                    json!({ "type": "string", "pattern": pattern }),
                );
            } else if map.get("type") == Some(&json!("string")) {
                all.insert("an address".to_owned(), schema.clone());
            }
            map.values().for_each(|value| patterns(value, all));
        }
        Json::Array(list) => list.iter().for_each(|value| patterns(value, all)),
        _ => {}
    }
}

fn maker(seed: u64) -> Maker {
    let pool = pool();
    let mut all = BTreeMap::new();
    patterns(&json_schema(), &mut all);
    let good = all
        .into_iter()
        .map(|(pattern, schema)| {
            let validator = validator(&schema);
            // What is loose in the schema (see DIFFERENCES) is no matter here.
            let fits = |text: &&String| {
                validator.is_valid(&json!(text)) && (text.matches(':').count() < 2 || pattern == "an address")
            };
            let good: Vec<String> = pool.iter().filter(fits).cloned().collect();
            (pattern, good)
        })
        .collect();
    Maker {
        chance: Chance(seed | 1),
        pool,
        good,
    }
}

#[test]
fn schema_and_reader_judge_alike() {
    assert!(DIFFERENCES.iter().all(|difference| !difference.is_empty()));
    let schema = json_schema();
    let validator = validator(&schema);
    let mut maker = maker(0x5eed_0007);
    let (mut valid, mut invalid) = (0, 0);
    for _ in 0..4000 {
        let document = maker.value(&schema);
        if !document.is_object() {
            continue;
        }
        let mut reader = Reader::default();
        let read = NodeConfig::read(&node(&document), "", &mut reader).is_some() && reader.faults.is_empty();
        let told: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(
            told.is_empty(),
            read,
            "{document:#}\nschema: {told:#?}\nreader: {:#?}",
            reader.faults
        );
        if read {
            valid += 1;
        } else {
            invalid += 1;
        }
    }
    eprintln!("{valid} valid documents, {invalid} invalid ones");
    assert!(valid > 300 && invalid > 300, "{valid} valid, {invalid} invalid");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_json_is_judged_by_both_without_panic(seed in any::<u64>()) {
        let mut maker = maker(seed);
        let schema = json_schema();
        for _ in 0..3 {
            let document = maker.value(&schema);
            let _ = NodeConfig::read(&node(&document), "", &mut Reader::default());
        }
    }
}
