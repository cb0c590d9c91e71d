//! Owns the metadata service of one node. Touches nothing.

use std::time::{Duration, SystemTime};

use cos_agent::world::{Outgoing, Reply};
use zeroize::Zeroizing;

use crate::node::REGION;

const TOKEN: &str = "AQAEAFfQ-the-length-of-a-token-of-the-service-is-56-long==";

/// Key of the role's credentials, by which Parameter Store knows the node.
pub(crate) fn access_key(node: usize) -> String {
    format!("ASIA{node:016}")
}

/// Token of the role's credentials.
pub(crate) fn session_token(node: usize) -> String {
    format!("session-of-{node}-{}", "x".repeat(900))
}

pub(crate) fn answer(outgoing: &Outgoing<'_>, node: usize, user_data: &str, now: SystemTime) -> Reply {
    let header = |wanted: &str| {
        let mut headers = outgoing.headers.iter();
        headers
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| *value)
    };
    let (_, path) = outgoing.url.split_once("/latest/").unwrap();
    if outgoing.method == "PUT" {
        assert_eq!(path, "api/token");
        return reply(200, TOKEN.to_owned());
    }
    if header("X-aws-ec2-metadata-token") != Some(TOKEN) {
        return reply(401, String::new());
    }
    match path {
        "dynamic/instance-identity/document" => reply(
            200,
            format!(
                r#"{{"accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "{REGION}a",
                "billingProducts": null, "devpayProductCodes": null, "marketplaceProductCodes": null,
                "imageId": "ami-0123456789abcdef0", "instanceId": "i-{node:017x}", "instanceType": "m6i.large",
                "kernelId": null, "pendingTime": "2026-11-25T00:00:00Z", "privateIp": "10.0.{}.{}",
                "ramdiskId": null, "region": "{REGION}", "version": "2017-09-30"}}"#,
                node / 250,
                node % 250
            ),
        ),
        "user-data" => reply(200, user_data.to_owned()),
        "meta-data/iam/security-credentials/" => reply(200, "node".to_owned()),
        "meta-data/iam/security-credentials/node" => reply(
            200,
            format!(
                r#"{{"Code": "Success", "LastUpdated": "2026-11-25T00:00:00Z", "Type": "AWS-HMAC",
                "AccessKeyId": "{}", "SecretAccessKey": "not a secret", "Token": "{}", "Expiration": "{}"}}"#,
                access_key(node),
                session_token(node),
                humantime::format_rfc3339_seconds(now + Duration::from_hours(6))
            ),
        ),
        _ => reply(404, String::new()),
    }
}

fn reply(status: u16, body: String) -> Reply {
    Reply {
        status,
        body: Zeroizing::new(body.into_bytes()),
        ..Reply::default()
    }
}

/// Packets of one exchange, both ways: a connection of its own, the request, the answer with an acknowledgement for
/// each packet, and the end. An agent that keeps connections needs fewer.
pub(crate) fn packets(reply: &Reply) -> u32 {
    let answer = u32::try_from(reply.body.len().div_ceil(1_400)).unwrap().max(1);
    3 + 1 + 2 * answer + 4
}
