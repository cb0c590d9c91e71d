//! Owns AWS's partitions: which regions belong together, and under which domains their services answer.
//! Touches nothing. The facts are those of botocore's `partitions.json`; the suite compares them.

/// Regions under one set of domains and one set of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Name in ARNs.
    pub(crate) name: &'static str,
    /// How the names of its regions begin; the first partition takes every other region.
    prefix: &'static str,
    /// Domain of services over IPv4.
    pub(crate) domain: &'static str,
    /// Domain of services over IPv4 and IPv6.
    pub(crate) dual_stack_domain: &'static str,
}

const fn partition(
    name: &'static str,
    prefix: &'static str,
    domain: &'static str,
    dual_stack_domain: &'static str,
) -> Partition {
    Partition {
        name,
        prefix,
        domain,
        dual_stack_domain,
    }
}

const COMMERCIAL: Partition = partition("aws", "", "amazonaws.com", "api.aws");

const OTHERS: [Partition; 7] = [
    partition(
        "aws-cn",
        "cn-",
        "amazonaws.com.cn",
        "api.amazonwebservices.com.cn",
    ),
    partition("aws-eusc", "eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    partition("aws-iso", "us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    partition(
        "aws-iso-e",
        "eu-isoe-",
        "cloud.adc-e.uk",
        "api.cloud-aws.adc-e.uk",
    ),
    partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    partition("aws-us-gov", "us-gov-", "amazonaws.com", "api.aws"),
];

impl Partition {
    /// The partition of a region. A region that no list knows yet belongs to the commercial partition, as AWS's
    /// own tools have it.
    pub(crate) fn of(region: &str) -> Self {
        OTHERS
            .into_iter()
            .find(|partition| region.starts_with(partition.prefix))
            .unwrap_or(COMMERCIAL)
    }

    /// Domain of the ECR registries that answer over IPv6 too: `on.aws` beside `api.aws`.
    pub(crate) fn dual_stack_registry_domain(&self) -> String {
        let base = self.dual_stack_domain.trim_start_matches("api.");
        format!("on.{base}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `agent/tests/aws/models.py` says where the file is from.
    #[test]
    fn partitions_are_those_of_botocore() {
        let models: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/aws/models.json")).unwrap();
        let known = models["partitions"].as_object().unwrap();
        assert_eq!(known.len(), OTHERS.len() + 1);
        for (name, told) in known {
            for region in told["regions"].as_array().unwrap() {
                let partition = Partition::of(region.as_str().unwrap());
                assert_eq!(
                    (partition.name, partition.domain, partition.dual_stack_domain),
                    (
                        name.as_str(),
                        told["domain"].as_str().unwrap(),
                        told["dual_stack_domain"].as_str().unwrap()
                    ),
                    "{region}"
                );
            }
        }
    }

    #[test]
    fn a_region_tells_its_partition() {
        for (region, name) in [
            ("eu-central-1", "aws"),
            ("mx-central-9", "aws"),
            ("zz-new-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            assert_eq!(Partition::of(region).name, name, "{region}");
        }
        assert_eq!(
            Partition::of("us-iso-east-1").dual_stack_registry_domain(),
            "on.aws.ic.gov"
        );
    }
}
