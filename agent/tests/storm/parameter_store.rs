//! Owns Parameter Store: what it holds, how much of it a second, and how it says no.
//! Touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use cos_agent::world::{Outgoing, Reply};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::limits::Bucket;
use crate::metadata;
use crate::node::REGION;

#[derive(Debug)]
pub(crate) struct ParameterStore {
    pub(crate) requests: Bucket,
    pub(crate) decryptions: Bucket,
    /// Type and value by name.
    parameters: BTreeMap<String, (&'static str, String)>,
    /// Of so many requests that there is room for, one gets lost after it was counted; none if zero.
    one_lost_of: u64,
    pub(crate) counts: Counts,
}

/// What was asked, and what came of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) answered: u64,
    pub(crate) throttled: u64,
    pub(crate) throttled_by_kms: u64,
    pub(crate) lost: u64,
    pub(crate) decrypted: u64,
    /// Requests of each second.
    pub(crate) seconds: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetParameters {
    names: Vec<String>,
    with_decryption: bool,
}

impl ParameterStore {
    pub(crate) fn new(
        requests: Bucket,
        decryptions: Bucket,
        parameters: BTreeMap<String, (&'static str, String)>,
        one_lost_of: u64,
    ) -> Self {
        Self {
            requests,
            decryptions,
            parameters,
            one_lost_of,
            counts: Counts::default(),
        }
    }

    /// Answers a request of a node.
    pub(crate) fn answer(
        &mut self,
        outgoing: &Outgoing<'_>,
        node: usize,
        now: Duration,
        date: SystemTime,
    ) -> Reply {
        let second = usize::try_from(now.as_secs()).unwrap();
        if self.counts.seconds.len() <= second {
            self.counts.seconds.resize(second + 1, 0);
        }
        self.counts.seconds[second] += 1;
        authenticate(outgoing, node, date);
        let request: GetParameters = serde_json::from_slice(outgoing.body).unwrap();
        let names: BTreeSet<&String> = request.names.iter().collect();
        assert!(!names.is_empty() && names.len() == request.names.len() && names.len() <= 10);
        assert!(request.with_decryption);
        if !self.requests.take(1.0, now) {
            self.counts.throttled += 1;
            return error(400, "ThrottlingException", "Rate exceeded");
        }
        let found: Vec<_> = names
            .iter()
            .filter_map(|name| self.parameters.get_key_value(*name))
            .collect();
        let secure = found
            .iter()
            .filter(|(_, (kind, _))| *kind == "SecureString")
            .count();
        let secure = u32::try_from(secure).unwrap();
        if secure > 0 && !self.decryptions.take(secure.into(), now) {
            self.counts.throttled_by_kms += 1;
            return error(
                400,
                "KMSThrottlingException",
                "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
            );
        }
        self.counts.decrypted += u64::from(secure);
        let counted = self.counts.answered + self.counts.lost + 1;
        if self.one_lost_of > 0 && counted.is_multiple_of(self.one_lost_of) {
            self.counts.lost += 1;
            return error(
                500,
                "InternalServerError",
                "An error occurred on the server side.",
            );
        }
        self.counts.answered += 1;
        let parameter = |(name, (kind, value)): &(&String, &(&'static str, String))| {
            json!({
                "ARN": format!("arn:aws:ssm:{REGION}:123456789012:parameter{name}"), "DataType": "text",
                "LastModifiedDate": 1_700_000_000.123, "Name": name, "Type": kind, "Value": value, "Version": 1,
            })
        };
        let invalid: Vec<_> = names
            .iter()
            .filter(|name| !self.parameters.contains_key(**name))
            .collect();
        let parameters: Vec<_> = found.iter().map(parameter).collect();
        reply(
            200,
            json!({"InvalidParameters": invalid, "Parameters": parameters}).to_string(),
        )
    }
}

/// The signature is tested against AWS's own vectors elsewhere; here it must be by the node, for the service, and of now.
fn authenticate(outgoing: &Outgoing<'_>, node: usize, date: SystemTime) {
    let header = |wanted: &str| {
        let mut headers = outgoing.headers.iter();
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.unwrap_or_else(|| panic!("no header {wanted}")).1
    };
    assert_eq!(
        (outgoing.method, outgoing.url),
        ("POST", "https://ssm.eu-central-1.amazonaws.com/")
    );
    assert_eq!(header("x-amz-target"), "AmazonSSM.GetParameters");
    assert_eq!(header("x-amz-security-token"), metadata::session_token(node));
    let moment = humantime::format_rfc3339_seconds(date).to_string();
    let moment = moment.replace(['-', ':'], "");
    let day = &moment[..8];
    let credential = format!(
        "Credential={}/{day}/{REGION}/ssm/aws4_request",
        metadata::access_key(node)
    );
    assert!(
        header("authorization").contains(&credential),
        "{}",
        header("authorization")
    );
    assert_eq!(header("x-amz-date")[..11], moment[..11]);
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    reply(status, json!({"__type": code, "message": message}).to_string())
}

fn reply(status: u16, body: String) -> Reply {
    Reply {
        status,
        body: Zeroizing::new(body.into_bytes()),
        request_id: Some("3a9e4e7f-0000-4000-8000-000000000000".to_owned()),
        ..Reply::default()
    }
}
