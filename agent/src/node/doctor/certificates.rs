//! Owns when the node's certificates run out.
//! Touches the files below the products' TLS folders (reading certificates, never keys).

use std::time::{Duration, SystemTime};

use super::der::{self, Certificate};
use super::{Case, Finding};

/// Where COS and operators put certificates.
const FOLDERS: [&str; 4] = [
    "/opt/consul/tls",
    "/opt/consul/tls/ca",
    "/opt/nomad/tls",
    "/opt/nomad/tls/ca",
];
/// Enough to make and hand out another one in working hours.
const SOON: Duration = Duration::from_hours(24 * 30);

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in FOLDERS {
        for name in case.files().entries(folder).unwrap_or_default() {
            let path = format!("{folder}/{name}");
            let certificate = [".pem", ".crt", ".cert", ".cer"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            if !certificate || case.files().locate(&path).is_dir() {
                continue;
            }
            let Ok(Some(text)) = case.files().read(&path) else {
                continue;
            };
            for read in der::certificates(&String::from_utf8_lossy(&text)) {
                findings.extend(judge(&path, read.as_ref(), case.patient.now));
            }
        }
    }
    findings
}

fn judge(path: &str, certificate: Option<&Certificate>, now: SystemTime) -> Option<Finding> {
    let fix = "put a new certificate where the configuration takes it from, then: cos-agent apply";
    let Some(certificate) = certificate else {
        return Some(Finding::warning(
            format!("{path} is not readable as a certificate"),
            "it is no DER of X.509",
            fix,
        ));
    };
    let name = certificate.name.as_deref().unwrap_or("without a name");
    let date = |moment| humantime::format_rfc3339_seconds(moment).to_string();
    let evidence = format!(
        "{path}: {name}, valid from {} to {}",
        date(certificate.not_before),
        date(certificate.not_after)
    );
    let days = |duration: Duration| duration.as_secs() / 86_400;
    if let Ok(early) = certificate.not_before.duration_since(now) {
        let fact = format!(
            "the certificate of {name} is not valid yet, for {} days",
            days(early)
        );
        return Some(Finding::fault(
            fact,
            evidence,
            "check the clock (chronyc tracking), then the certificate",
        ));
    }
    let Ok(left) = certificate.not_after.duration_since(now) else {
        let since = now.duration_since(certificate.not_after).unwrap_or_default();
        let fact = format!("the certificate of {name} ran out {} days ago", days(since));
        return Some(Finding::fault(fact, evidence, fix));
    };
    (left < SOON).then(|| {
        let fact = format!("the certificate of {name} runs out in {} days", days(left));
        Finding::warning(fact, evidence, fix)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn what_is_over_or_nearly_is_told() {
        let at = |text: &str| humantime::parse_rfc3339(text).unwrap();
        let certificate = Certificate {
            not_before: at("2025-01-01T00:00:00Z"),
            not_after: at("2026-01-01T00:00:00Z"),
            name: Some("server".to_owned()),
        };
        let told = |now: &str| {
            judge("/opt/consul/tls/a.pem", Some(&certificate), at(now))
                .map(|found| (found.severity, found.fact))
        };
        let words = |severity, text: &str| Some((severity, format!("the certificate of server {text}")));
        assert_eq!(told("2025-06-01T00:00:00Z"), None);
        assert_eq!(
            told("2025-12-20T00:00:00Z"),
            words(Severity::Warning, "runs out in 12 days")
        );
        assert_eq!(
            told("2026-02-01T00:00:00Z"),
            words(Severity::Fault, "ran out 31 days ago")
        );
        assert_eq!(
            told("2024-12-31T00:00:00Z"),
            words(Severity::Fault, "is not valid yet, for 1 days")
        );
        assert!(judge("x", None, at("2025-06-01T00:00:00Z")).is_some());
    }
}
