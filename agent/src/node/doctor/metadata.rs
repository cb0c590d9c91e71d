//! Owns what is wrong between the node and the metadata service: reachability, version, hop limit, the role.
//! Touches the metadata service.

use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::{Case, Finding};
use crate::node::http::{self, Answer};

const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);
const TOKEN_LIFE: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "60");
const TOKEN: &str = "X-aws-ec2-metadata-token";

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let base = case.patient.imds.trim_end_matches('/');
    let agent = http::client(CONNECT, ANSWER);
    let instance = case.instance();
    let options =
        |option: &str| format!("aws ec2 modify-instance-metadata-options --instance-id {instance} {option}");
    let url = format!("{base}/latest/api/token");
    let token = match http::put(&agent, &url, TOKEN_LIFE) {
        Ok(Answer { status: 200, body }) => String::from_utf8_lossy(&body).trim().to_owned(),
        Ok(Answer { status: 403, .. }) => {
            return vec![Finding::fault(
                "the metadata service is switched off for this instance",
                format!("PUT {url} answers 403"),
                options("--http-endpoint enabled --http-tokens required"),
            )];
        }
        Ok(Answer { status, .. }) => {
            return vec![Finding::fault(
                "the metadata service gives no token",
                format!("PUT {url} answers {status}"),
                "is this the instance metadata service? another address goes by --imds URL",
            )];
        }
        // Connected and no answer: the reply to PUT has a small time to live and dies on a second hop.
        Err(ureq::Error::Timeout(ureq::Timeout::RecvResponse)) => {
            return vec![Finding::fault(
                "the metadata service takes connections and its token does not come back: the hop limit is too low",
                format!("PUT {url} was not answered within {} s", ANSWER.as_secs()),
                options("--http-put-response-hop-limit 2"),
            )];
        }
        Err(error) => {
            let refused =
                matches!(&error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused);
            let fix = if refused {
                "iptables -S OUTPUT | grep 169.254; a local proxy or packet filter refuses the connection"
            } else {
                "ip route get 169.254.169.254; the packet filter; and ethtool -S eth0 | grep linklocal"
            };
            return vec![Finding::fault(
                "the metadata service does not answer",
                format!("PUT {url}: {error}"),
                fix,
            )];
        }
    };
    let get = |path: &str| http::get(&agent, &format!("{base}/latest/{path}"), Some((TOKEN, &token)));
    let mut findings = Vec::new();
    if let Ok(Answer { status: 200, .. }) =
        http::get(&agent, &format!("{base}/latest/meta-data/instance-id"), None)
    {
        findings.push(Finding::warning(
            "the metadata service answers without a token too (version 1)",
            format!("GET {base}/latest/meta-data/instance-id answers 200 without a token"),
            options("--http-tokens required"),
        ));
    }
    findings.extend(role(get, instance, case));
    findings
}

/// What the service says of the role's credentials.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    expiration: String,
}

fn role(get: impl Fn(&str) -> Result<Answer, ureq::Error>, instance: &str, case: &Case) -> Option<Finding> {
    const PATH: &str = "meta-data/iam/security-credentials/";
    let answer = get(PATH).ok()?;
    let name = String::from_utf8_lossy(&answer.body)
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    if answer.status == 404 || name.is_empty() {
        return Some(Finding::fault(
            "the instance has no role: it can neither find the Consul servers nor pull from ECR",
            format!("{PATH} answers {}", answer.status),
            format!(
                "aws ec2 associate-iam-instance-profile --instance-id {instance} --iam-instance-profile Name=PROFILE"
            ),
        ));
    }
    let answer = get(&format!("{PATH}{name}")).ok()?;
    let Ok(credentials) = serde_json::from_slice::<Credentials>(&answer.body) else {
        return Some(Finding::fault(
            format!("the credentials of the role {name} are not readable"),
            format!("{PATH}{name} answers {}", answer.status),
            "aws sts get-caller-identity",
        ));
    };
    if credentials.code != "Success" {
        return Some(Finding::fault(
            format!("the instance may not take on the role {name}"),
            format!("{}: {}", credentials.code, credentials.message),
            format!("let the trust policy of {name} allow sts:AssumeRole to ec2.amazonaws.com"),
        ));
    }
    let expires = humantime::parse_rfc3339(&credentials.expiration).ok()?;
    (expires <= case.patient.now).then(|| {
        Finding::fault(
            format!("the credentials of the role {name} have run out"),
            format!("expired at {}", credentials.expiration),
            "check the clock; if it is right, the role's trust policy was taken away since",
        )
    })
}
