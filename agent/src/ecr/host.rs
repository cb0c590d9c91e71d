//! Owns which hosts are ECR registries, and what their names say: region, partition, kind of address.
//! Touches nothing.

use crate::aws::{Partition, Variant};

/// Where ECR Public's API is, whatever region asks.
const PUBLIC_REGION: &str = "us-east-1";

/// An ECR registry, by its host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Host name, in small letters.
    pub host: String,
    /// Account that owns it, twelve digits; none for ECR Public.
    pub account: Option<String>,
    /// Region whose API gives the login.
    pub region: String,
    /// The API's address that goes with the registry's.
    pub variant: Variant,
}

impl Registry {
    /// Reads what Docker or Nomad ask for: a host, `https://` before it or not, a repository after it or not (old
    /// versions of Nomad hand on the whole image name). None if that is no ECR registry.
    ///
    /// The forms are those of the ECR User Guide, "Amazon ECR endpoints": `ACCOUNT.dkr.ecr.REGION.DOMAIN`, with
    /// `ecr-fips`, and with `dkr-ecr` for the domains that answer over IPv6 too; `public.ecr.aws` and, over IPv6
    /// too, `ecr-public.aws.com`.
    pub fn parse(server: &str) -> Option<Self> {
        let server = server.trim().to_ascii_lowercase();
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|scheme| server.strip_prefix(scheme))
            .unwrap_or(&server);
        let host = rest.split('/').next().unwrap_or(rest);
        let host = host.strip_suffix(":443").unwrap_or(host);
        let public = |dual_stack| Self {
            host: host.to_owned(),
            account: None,
            region: PUBLIC_REGION.to_owned(),
            variant: Variant {
                fips: false,
                dual_stack,
            },
        };
        match host {
            "public.ecr.aws" => return Some(public(false)),
            "ecr-public.aws.com" => return Some(public(true)),
            _ => {}
        }
        let (account, rest) = host.split_once('.')?;
        let digits = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let (rest, dual_stack) = match (rest.strip_prefix("dkr.ecr"), rest.strip_prefix("dkr-ecr")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return None,
        };
        let (rest, fips) = match rest.strip_prefix("-fips") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (region, domain) = rest.strip_prefix('.')?.split_once('.')?;
        let partition = Partition::of(region);
        let expected = if dual_stack {
            partition.dual_stack_registry_domain()
        } else {
            partition.domain.to_owned()
        };
        let named = !region.is_empty()
            && region
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (digits && named && domain == expected).then(|| Self {
            host: host.to_owned(),
            account: Some(account.to_owned()),
            region: region.to_owned(),
            variant: Variant { fips, dual_stack },
        })
    }

    /// Whether it is ECR Public.
    pub fn is_public(&self) -> bool {
        self.account.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn registries_of_all_partitions_are_known() {
        let plain = Variant::default();
        let fips = Variant { fips: true, ..plain };
        let dual = Variant {
            dual_stack: true,
            ..plain
        };
        let both = Variant {
            fips: true,
            dual_stack: true,
        };
        for (rest, region, variant) in [
            ("dkr.ecr.eu-central-1.amazonaws.com", "eu-central-1", plain),
            ("dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1", plain),
            ("dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1", fips),
            ("dkr.ecr.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", plain),
            ("dkr.ecr.us-iso-east-1.c2s.ic.gov", "us-iso-east-1", plain),
            ("dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1", plain),
            ("dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1", plain),
            ("dkr.ecr.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1", plain),
            ("dkr-ecr.us-west-2.on.aws", "us-west-2", dual),
            ("dkr-ecr-fips.us-east-1.on.aws", "us-east-1", both),
            (
                "dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn",
                "cn-northwest-1",
                dual,
            ),
            ("dkr-ecr.us-isob-east-1.on.aws.scloud", "us-isob-east-1", dual),
        ] {
            let host = format!("123456789012.{rest}");
            let registry = Registry::parse(&host).unwrap_or_else(|| panic!("{host}"));
            assert_eq!(
                (registry.region.as_str(), registry.variant),
                (region, variant),
                "{host}"
            );
            assert_eq!(registry.account.as_deref(), Some("123456789012"));
        }
        for (host, variant) in [("public.ecr.aws", plain), ("ecr-public.aws.com", dual)] {
            let registry = Registry::parse(host).unwrap();
            assert!(registry.is_public());
            assert_eq!(
                (registry.region.as_str(), registry.variant),
                ("us-east-1", variant)
            );
        }
    }

    #[test]
    fn hosts_come_in_many_dresses() {
        let expected = Registry::parse("123456789012.dkr.ecr.eu-central-1.amazonaws.com").unwrap();
        for dressed in [
            "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com/v2/",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/web:1.2",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com:443",
            " 123456789012.DKR.ECR.eu-central-1.amazonaws.com\n",
        ] {
            assert_eq!(Registry::parse(dressed), Some(expected.clone()), "{dressed}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for host in [
            "",
            "https://index.docker.io/v1/",
            "ghcr.io",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com.example.org",
            "12345678901.dkr.ecr.eu-central-1.amazonaws.com",
            "x23456789012.dkr.ecr.eu-central-1.amazonaws.com",
            ".dkr.ecr.eu-central-1.amazonaws.com",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-central-1.on.aws",
            "123456789012.dkr-ecr.eu-central-1.amazonaws.com",
            "123456789012.dkr.ecrx.eu-central-1.amazonaws.com",
            "public.ecr.aws.example.org",
            "user@123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com:5000",
        ] {
            assert_eq!(Registry::parse(host), None, "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_host_brings_it_down(
            text in ".*",
            like in r"(https://)?[0-9x]{0,13}\.?dkr[.-]?ecr(-fips)?\.[a-z0-9.-]{0,20}(amazonaws\.com|on\.aws)?"
        ) {
            let _ = (Registry::parse(&text), Registry::parse(&like));
        }
    }
}
