//! Owns where each service answers: by region and partition, by the instance's domain, or where the environment says.
//! Touches nothing.

use super::environment::Environment;
use super::partition::Partition;

/// The services that the agent calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    AutoScaling,
    Ec2,
    Ecr,
    EcrPublic,
    Ssm,
}

impl Service {
    /// What the signature is made for; also the prefix of IAM actions.
    pub(crate) fn signing_name(self) -> &'static str {
        match self {
            Self::AutoScaling => "autoscaling",
            Self::Ec2 => "ec2",
            Self::Ecr => "ecr",
            Self::EcrPublic => "ecr-public",
            Self::Ssm => "ssm",
        }
    }

    /// The service's own ending of `AWS_ENDPOINT_URL_…`: its id in capitals.
    fn variable(self) -> &'static str {
        match self {
            Self::AutoScaling => "AUTO_SCALING",
            Self::Ec2 => "EC2",
            Self::Ecr => "ECR",
            Self::EcrPublic => "ECR_PUBLIC",
            Self::Ssm => "SSM",
        }
    }
}

/// Which of a service's addresses is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Variant {
    /// With cryptography that is validated for FIPS 140.
    pub fips: bool,
    /// Over IPv4 and IPv6.
    pub dual_stack: bool,
}

/// The URL of a service, without a slash at its end: `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL`, or by AWS's
/// own rules. `domain` is what the instance says its services' domain is; none leaves it to the region.
pub(crate) fn url(
    service: Service,
    region: &str,
    domain: Option<&str>,
    variant: Variant,
    environment: &Environment,
) -> String {
    if !environment.is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
        let own = format!("AWS_ENDPOINT_URL_{}", service.variable());
        if let Some(url) = environment
            .get(&own)
            .or_else(|| environment.get("AWS_ENDPOINT_URL"))
        {
            return url.trim_end_matches('/').to_owned();
        }
    }
    format!("https://{}", host(service, region, domain, variant))
}

/// Host by AWS's rules, as botocore's rule sets have them.
fn host(service: Service, region: &str, domain: Option<&str>, variant: Variant) -> String {
    let partition = Partition::of(region);
    let Variant { fips, dual_stack } = variant;
    let name = service.signing_name();
    // The plain address of these services is the validated one in GovCloud.
    let plain_is_fips = partition.name == "aws-us-gov" && !dual_stack;
    let label = match (service, dual_stack) {
        (Service::Ecr | Service::EcrPublic, false) => format!("api.{name}"),
        (Service::EcrPublic, true) if fips || partition.name != "aws" => format!("api.{name}"),
        _ => name.to_owned(),
    };
    let fips = match service {
        Service::Ecr | Service::EcrPublic => fips,
        _ => fips && !plain_is_fips,
    };
    let fips = if fips { "-fips" } else { "" };
    let domain = if dual_stack {
        partition.dual_stack_domain
    } else {
        domain.unwrap_or(partition.domain)
    };
    format!("{label}{fips}.{region}.{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_region_partition_and_variant() {
        let plain = Variant::default();
        let fips = Variant { fips: true, ..plain };
        let dual = Variant {
            dual_stack: true,
            ..plain
        };
        for (service, region, variant, expected) in [
            (
                Service::Ecr,
                "eu-central-1",
                plain,
                "api.ecr.eu-central-1.amazonaws.com",
            ),
            (
                Service::Ecr,
                "us-east-1",
                fips,
                "api.ecr-fips.us-east-1.amazonaws.com",
            ),
            (
                Service::Ecr,
                "cn-north-1",
                dual,
                "ecr.cn-north-1.api.amazonwebservices.com.cn",
            ),
            (
                Service::EcrPublic,
                "us-east-1",
                plain,
                "api.ecr-public.us-east-1.amazonaws.com",
            ),
            (
                Service::Ssm,
                "us-gov-west-1",
                fips,
                "ssm.us-gov-west-1.amazonaws.com",
            ),
            (
                Service::AutoScaling,
                "us-iso-east-1",
                plain,
                "autoscaling.us-iso-east-1.c2s.ic.gov",
            ),
            (Service::Ec2, "us-east-2", dual, "ec2.us-east-2.api.aws"),
        ] {
            assert_eq!(host(service, region, None, variant), expected);
        }
        assert_eq!(
            host(Service::Ssm, "xx-new-1", Some("example.internal"), plain),
            "ssm.xx-new-1.example.internal"
        );
    }

    /// `agent/tests/aws/models.py` says where the file is from.
    #[test]
    fn addresses_are_those_of_botocores_rules() {
        let models: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/aws/models.json")).unwrap();
        let mut compared = 0;
        for service in [
            Service::AutoScaling,
            Service::Ec2,
            Service::Ecr,
            Service::EcrPublic,
            Service::Ssm,
        ] {
            let name = service.signing_name();
            assert_eq!(models["endpoint_variables"][name], service.variable());
            for (key, expected) in models["hosts"][name].as_object().unwrap() {
                let (partition, variant) = key.split_once(' ').unwrap();
                let variant = Variant {
                    fips: variant.contains("fips"),
                    dual_stack: variant.contains("dual"),
                };
                for region in models["partitions"][partition]["regions"].as_array().unwrap() {
                    let region = region.as_str().unwrap();
                    assert_eq!(
                        host(service, region, None, variant),
                        expected.as_str().unwrap().replace("REGION", region),
                        "{name} {key}"
                    );
                    compared += 1;
                }
            }
        }
        assert!(compared > 900, "{compared}");
    }

    #[test]
    fn the_environment_comes_first_and_can_be_told_not_to() {
        let ask = |variables: &[(&str, &str)], service| {
            url(
                service,
                "eu-central-1",
                None,
                Variant::default(),
                &variables.iter().copied().collect(),
            )
        };
        let general = ("AWS_ENDPOINT_URL", "http://127.0.0.1:5000/");
        let own = ("AWS_ENDPOINT_URL_AUTO_SCALING", "http://127.0.0.1:6000");
        assert_eq!(ask(&[general, own], Service::Ssm), "http://127.0.0.1:5000");
        assert_eq!(
            ask(&[general, own], Service::AutoScaling),
            "http://127.0.0.1:6000"
        );
        let ignored = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
        assert_eq!(
            ask(&[general, own, ignored], Service::AutoScaling),
            "https://autoscaling.eu-central-1.amazonaws.com"
        );
    }
}
