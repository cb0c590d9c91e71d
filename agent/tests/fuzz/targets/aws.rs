//! Answers of AWS, through the agent's own client: JSON, XML of the Query protocol, and refusals of both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cos_agent::aws::{AwsError, Client, Held, Kind, LifecycleResult, Settings};
use cos_agent::ecr::Registry;
use cos_agent::world::{Outgoing, Reply, Trouble, World};
use zeroize::Zeroizing;

use crate::target::{JSON, TEXT, Target, XML};

/// A world in which everybody says the same, and every wait is over at once.
#[derive(Debug, Default)]
pub(crate) struct Canned {
    said: Mutex<(u16, Vec<u8>)>,
    /// What is said on URLs with these ends, whatever else is.
    fixed: &'static [(&'static str, &'static str)],
    seconds: AtomicU64,
}

impl Canned {
    pub(crate) fn with(fixed: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            fixed,
            ..Self::default()
        }
    }

    pub(crate) fn say(&self, status: u16, body: &[u8]) {
        *self.said.lock().unwrap() = (status, body.to_vec());
    }
}

impl World for Canned {
    fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Reply, Trouble> {
        let fixed = self.fixed.iter().find(|(end, _)| outgoing.url.ends_with(end));
        let (status, body) = match fixed {
            Some((_, body)) => (200, body.as_bytes().to_vec()),
            None => self.said.lock().unwrap().clone(),
        };
        Ok(Reply {
            status,
            body: Zeroizing::new(body),
            ..Reply::default()
        })
    }

    fn ticks(&self) -> Duration {
        Duration::from_secs(self.seconds.fetch_add(1, Ordering::Relaxed))
    }

    fn pause(&self, _: Duration) {}

    fn chance(&self) -> u32 {
        0
    }
}

fn client(world: &Arc<Canned>) -> Client {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not a secret"),
    ];
    let world: Arc<dyn World> = world.clone();
    Client::new(Settings {
        deadline: Duration::ZERO,
        world: Some(world),
        ..Settings::new("eu-central-1", keys.into_iter().collect())
    })
}

/// A call that is answered with the input.
fn call<T>(
    name: &str,
    samples: &[&str],
    words: &'static [&'static str],
    ask: impl Fn(&Client) -> Result<T, AwsError> + Send + 'static,
) -> Target {
    let world = Arc::new(Canned::default());
    let client = client(&world);
    Target::new(
        format!("aws {name}"),
        samples.iter().copied(),
        words,
        move |input| {
            world.say(200, input);
            ask(&client).is_ok()
        },
    )
    .weighing(20)
}

/// A call that is refused with the input; one whose reason is understood counts as accepted.
fn refusal(name: &str, samples: &[&str], words: &'static [&'static str]) -> Target {
    let world = Arc::new(Canned::default());
    let client = client(&world);
    Target::new(
        format!("aws refusal in {name}"),
        samples.iter().copied(),
        words,
        move |input| {
            world.say(400, input);
            let error = client.get_service_setting("/ssm/x").unwrap_err();
            let _ = (cos_agent::error::chain(&error), error.hint());
            !matches!(error.kind, Kind::Rejected { ref code, .. } if code.is_empty())
        },
    )
    .weighing(20)
}

const PARAMETERS: &str = r#"{"InvalidParameters":[],"Parameters":[
    {"ARN":"arn:aws:ssm:eu-central-1:123456789012:parameter/cos/key","DataType":"text","LastModifiedDate":1.7E9,
     "Name":"/cos/key","Type":"SecureString","Value":"AQEBAQ==","Version":3},
    {"Name":"/cos/other","Selector":":2","Type":"String","Value":"a\nb","Version":2}]}"#;

const TOKEN: &str = r#"{"authorizationData":[{"authorizationToken":"QVdTOnBhc3N3b3Jk","expiresAt":1.7957E9,
    "proxyEndpoint":"https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"}]}"#;

const PUBLIC_TOKEN: &str =
    r#"{"authorizationData":{"authorizationToken":"QVdTOnBhc3N3b3Jk","expiresAt":1795700000.123}}"#;

const INSTANCE: &str = "<DescribeAutoScalingInstancesResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">
  <DescribeAutoScalingInstancesResult><AutoScalingInstances><member><InstanceId>i-1</InstanceId>
  <AutoScalingGroupName>nomad &amp; clients</AutoScalingGroupName><AvailabilityZone>eu-central-1a</AvailabilityZone>
  <LifecycleState>Pending:Wait</LifecycleState><HealthStatus>HEALTHY</HealthStatus></member></AutoScalingInstances>
  </DescribeAutoScalingInstancesResult></DescribeAutoScalingInstancesResponse>";

const GROUP: &str =
    "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>
  <AutoScalingGroupName>servers</AutoScalingGroupName><MinSize>3</MinSize><MaxSize>5</MaxSize>
  <DesiredCapacity>3</DesiredCapacity><Instances><member><InstanceId>i-1</InstanceId>
  <AvailabilityZone>eu-central-1a</AvailabilityZone><LifecycleState>InService</LifecycleState>
  <HealthStatus>Healthy</HealthStatus></member></Instances></member></AutoScalingGroups>
  </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>";

const HOOKS: &str = "<DescribeLifecycleHooksResponse><DescribeLifecycleHooksResult><LifecycleHooks><member>
  <LifecycleHookName>drain</LifecycleHookName>
  <LifecycleTransition>autoscaling:EC2_INSTANCE_TERMINATING</LifecycleTransition>
  <HeartbeatTimeout>3600</HeartbeatTimeout><GlobalTimeout>172800</GlobalTimeout>
  <DefaultResult>CONTINUE</DefaultResult></member></LifecycleHooks></DescribeLifecycleHooksResult>
  </DescribeLifecycleHooksResponse>";

const COMPLETE: &str =
    "<CompleteLifecycleActionResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">
  <CompleteLifecycleActionResult/><ResponseMetadata><RequestId>7c6e</RequestId></ResponseMetadata>
  </CompleteLifecycleActionResponse>";

const TAGS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<DescribeTagsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>7a62</requestId>
  <tagSet><item><resourceId>i-1</resourceId><key>Name</key><value>a &lt;node&gt;</value></item>
  <item><key>cos:empty</key><value/></item></tagSet></DescribeTagsResponse>";

const MORE_TAGS: &str = "<DescribeTagsResponse><tagSet/><nextToken>again</nextToken></DescribeTagsResponse>";

const VOLUMES: &str = "<DescribeVolumesResponse><volumeSet><item><volumeId>vol-1</volumeId><size>8</size>
  <snapshotId>snap-1</snapshotId><status>in-use</status><attachmentSet><item><instanceId>i-1</instanceId>
  <device>/dev/xvda</device><status>attached</status></item></attachmentSet></item></volumeSet>
  </DescribeVolumesResponse>";

pub(crate) fn targets() -> Vec<Target> {
    let held = Held {
        group: "servers",
        hook: "drain",
        instance: "i-1",
    };
    vec![
        call("GetParameters", &[PARAMETERS], JSON, |client| {
            client.get_parameters(["/cos/key", "/cos/other:2"])
        }),
        call(
            "GetServiceSetting",
            &[r#"{"ServiceSetting":{"SettingId":"/ssm/x","SettingValue":"true","Status":"Customized"}}"#],
            JSON,
            |client| client.get_service_setting("/ssm/x"),
        ),
        call("ecr GetAuthorizationToken", &[TOKEN], JSON, Client::get_authorization_token),
        call(
            "ecr-public GetAuthorizationToken",
            &[PUBLIC_TOKEN],
            JSON,
            Client::get_public_authorization_token,
        ),
        call("DescribeAutoScalingInstances", &[INSTANCE], XML, |client| {
            client.describe_auto_scaling_instance("i-1")
        }),
        call("DescribeAutoScalingGroups", &[GROUP], XML, |client| {
            client.describe_auto_scaling_group("servers")
        }),
        call("DescribeLifecycleHooks", &[HOOKS], XML, |client| {
            client.describe_lifecycle_hooks("servers")
        }),
        call("CompleteLifecycleAction", &[COMPLETE], XML, move |client| {
            client.complete_lifecycle_action(held, LifecycleResult::Continue)
        }),
        call("DescribeTags", &[TAGS, TAGS, MORE_TAGS], XML, |client| client.describe_tags("i-1")),
        call("DescribeVolumes", &[VOLUMES], XML, |client| client.describe_volumes("i-1")),
        refusal(
            "JSON",
            &[
                r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
                r#"{"__type":"com.amazonaws.ssm#AccessDeniedException:http://x/","Message":"User: arn:aws:sts::1:x is not
                authorized to perform: ssm:GetParameters on resource: arn:aws:ssm:eu:1:parameter/cos because no"}"#,
                r#"{"code":"InvalidSignatureException","message":"Signature expired: 20261125T is now earlier than"}"#,
            ],
            JSON,
        ),
        refusal(
            "XML",
            &[
                "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>
                <Code>ValidationError</Code><Message>No active Lifecycle Action found</Message></Error></ErrorResponse>",
                "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized</Message>
                </Error></Errors><RequestID>1</RequestID></Response>",
            ],
            XML,
        ),
        Target::new(
            "ecr host",
            [
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                "https://123456789012.dkr-ecr-fips.us-gov-west-1.on.aws/v2/",
                "public.ecr.aws",
            ],
            TEXT,
            |input| Registry::parse(&String::from_utf8_lossy(input)).is_some(),
        )
        .weighing(40),
    ]
}
