//! Owns answers as AWS gives them, and a metadata service with a role. Touches loopback.

use std::time::{Duration, SystemTime};

use base64::Engine;
use cos_agent::aws::{Client, Environment, Settings};

use crate::server::{Request, Response, Server};

pub(crate) const REGION: &str = "eu-central-1";

/// Planted in every place where a secret may be; no output may hold it.
pub(crate) const PLANTED: &str = "planted-secret";

/// A client that signs with keys of the environment and sends everything to `server`.
pub(crate) fn client(server: &Server, deadline: Duration) -> Client {
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", PLANTED),
        ("AWS_ENDPOINT_URL", &server.url),
    ];
    Client::new(Settings {
        deadline,
        ..Settings::new(REGION, environment.into_iter().collect())
    })
}

/// A client that signs with the role of a metadata service.
pub(crate) fn role_client(imds: &Server, server: &Server, deadline: Duration) -> Client {
    let environment: Environment = [("AWS_ENDPOINT_URL", &server.url)].into_iter().collect();
    Client::new(Settings {
        deadline,
        imds: Some(imds.url.clone()),
        ..Settings::new(REGION, environment)
    })
}

/// A metadata service with a role, whose access key ids count up with each question.
pub(crate) fn imds() -> Server {
    let mut given = 0;
    Server::start(move |request| metadata(request, &mut given))
}

pub(crate) fn metadata(request: &Request, given: &mut u32) -> Response {
    if request.method == "PUT" && request.path == "/latest/api/token" {
        return Response::new(200, "token");
    }
    if request.header("X-aws-ec2-metadata-token") != "token" {
        return Response::new(401, "");
    }
    match request.path.as_str() {
        "/latest/meta-data/iam/security-credentials/" => Response::new(200, "node"),
        "/latest/meta-data/iam/security-credentials/node" => {
            *given += 1;
            let expires = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_hours(6));
            Response::new(
                200,
                format!(
                    r#"{{"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
                    "AccessKeyId": "ASIA{given}", "SecretAccessKey": "{PLANTED}", "Token": "{PLANTED}-{given}",
                    "Expiration": "{expires}"}}"#
                ),
            )
        }
        _ => Response::new(404, ""),
    }
}

/// An error as the JSON services tell it.
pub(crate) fn json_error(code: &str, message: &str) -> Response {
    let body = serde_json::json!({"__type": code, "message": message});
    Response::new(400, body.to_string())
        .with("content-type", "application/x-amz-json-1.1")
        .with("x-amzn-RequestId", "3a9e4e7f-0000")
}

/// An error as Auto Scaling tells it.
pub(crate) fn xml_error(code: &str, message: &str) -> Response {
    Response::new(
        400,
        format!(
            "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{message}</Message></Error><RequestId>7c6e</RequestId></ErrorResponse>"
        ),
    )
}

pub(crate) fn parameters() -> Response {
    Response::new(
        200,
        serde_json::json!({
            "Parameters": [{
                "Name": "/cos/key", "Type": "SecureString", "Value": PLANTED, "Version": 3,
                "LastModifiedDate": 1_700_000_000.123, "DataType": "text",
                "ARN": "arn:aws:ssm:eu-central-1:123456789012:parameter/cos/key",
            }],
        })
        .to_string(),
    )
}

/// ECR's answer with a password and a life from now.
pub(crate) fn token(password: &str, life: Duration) -> Response {
    let expires = SystemTime::now() + life;
    let expires = expires
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    Response::new(
        200,
        serde_json::json!({"authorizationData": [{
            "authorizationToken": base64::prelude::BASE64_STANDARD.encode(format!("AWS:{password}")),
            "expiresAt": expires,
            "proxyEndpoint": "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        }]})
        .to_string(),
    )
}

pub(crate) fn public_token(password: &str) -> Response {
    let mut answer = token(password, Duration::from_hours(12));
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let mut data = body["authorizationData"][0].clone();
    data.as_object_mut().unwrap().remove("proxyEndpoint");
    answer.body = serde_json::json!({"authorizationData": data}).to_string();
    answer
}

/// Answers of the Query protocol, as the API references show them.
pub(crate) fn query(operation: &str) -> Response {
    let autoscaling = |result: &str| {
        format!(
            "<{operation}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\n  \
             <{operation}Result>{result}</{operation}Result>\n  \
             <ResponseMetadata><RequestId>7c6e</RequestId></ResponseMetadata>\n</{operation}Response>"
        )
    };
    let ec2 = |content: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{operation}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>7a62</requestId>{content}</{operation}Response>"
        )
    };
    let body = match operation {
        "DescribeAutoScalingInstances" => autoscaling(
            "<AutoScalingInstances><member><InstanceId>i-0123456789abcdef0</InstanceId>\
             <InstanceType>m6i.large</InstanceType><AutoScalingGroupName>nomad &amp; clients</AutoScalingGroupName>\
             <AvailabilityZone>eu-central-1a</AvailabilityZone><LifecycleState>Pending:Wait</LifecycleState>\
             <HealthStatus>HEALTHY</HealthStatus><ProtectedFromScaleIn>false</ProtectedFromScaleIn>\
             </member></AutoScalingInstances>",
        ),
        "DescribeAutoScalingGroups" => autoscaling(
            "<AutoScalingGroups><member><AutoScalingGroupName>servers</AutoScalingGroupName><MinSize>3</MinSize>\
             <MaxSize>5</MaxSize><DesiredCapacity>3</DesiredCapacity><DefaultCooldown>300</DefaultCooldown>\
             <AvailabilityZones><member>eu-central-1a</member></AvailabilityZones>\
             <HealthCheckType>EC2</HealthCheckType><CreatedTime>2026-01-01T00:00:00Z</CreatedTime><Instances>\
             <member><InstanceId>i-1</InstanceId><AvailabilityZone>eu-central-1a</AvailabilityZone>\
             <LifecycleState>InService</LifecycleState><HealthStatus>Healthy</HealthStatus>\
             <ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>\
             <member><InstanceId>i-2</InstanceId><AvailabilityZone>eu-central-1b</AvailabilityZone>\
             <LifecycleState>Pending</LifecycleState><HealthStatus>Healthy</HealthStatus>\
             <ProtectedFromScaleIn>false</ProtectedFromScaleIn></member></Instances></member></AutoScalingGroups>",
        ),
        "DescribeLifecycleHooks" => autoscaling(
            "<LifecycleHooks><member><LifecycleHookName>ready</LifecycleHookName>\
             <AutoScalingGroupName>servers</AutoScalingGroupName>\
             <LifecycleTransition>autoscaling:EC2_INSTANCE_LAUNCHING</LifecycleTransition>\
             <HeartbeatTimeout>600</HeartbeatTimeout><GlobalTimeout>60000</GlobalTimeout>\
             <DefaultResult>ABANDON</DefaultResult></member><member>\
             <LifecycleHookName>drain</LifecycleHookName><AutoScalingGroupName>servers</AutoScalingGroupName>\
             <LifecycleTransition>autoscaling:EC2_INSTANCE_TERMINATING</LifecycleTransition>\
             <HeartbeatTimeout>3600</HeartbeatTimeout><GlobalTimeout>172800</GlobalTimeout>\
             <DefaultResult>CONTINUE</DefaultResult></member></LifecycleHooks>",
        ),
        "CompleteLifecycleAction" | "RecordLifecycleActionHeartbeat" => autoscaling(""),
        "DescribeTags" => ec2(
            "<tagSet><item><resourceId>i-1</resourceId><resourceType>instance</resourceType><key>Name</key>\
             <value>a &lt;node&gt;</value></item><item><resourceId>i-1</resourceId>\
             <resourceType>instance</resourceType><key>cos:empty</key><value/></item></tagSet>",
        ),
        "DescribeInstances" => ec2(
            "<reservationSet><item><reservationId>r-1</reservationId><instancesSet><item>\
             <instanceId>i-1</instanceId><privateIpAddress>192.0.2.1</privateIpAddress></item><item>\
             <instanceId>i-2</instanceId></item></instancesSet></item><item><reservationId>r-2</reservationId>\
             <instancesSet><item><instanceId>i-3</instanceId><privateIpAddress>192.0.2.3</privateIpAddress>\
             </item></instancesSet></item></reservationSet>",
        ),
        "DescribeVolumes" => ec2(
            "<volumeSet><item><volumeId>vol-1</volumeId><size>8</size><snapshotId>snap-1</snapshotId>\
             <availabilityZone>eu-central-1a</availabilityZone><status>in-use</status>\
             <createTime>2026-01-01T00:00:00.000Z</createTime><attachmentSet><item><volumeId>vol-1</volumeId>\
             <instanceId>i-1</instanceId><device>/dev/xvda</device><status>attached</status>\
             <deleteOnTermination>true</deleteOnTermination></item></attachmentSet><volumeType>gp3</volumeType>\
             </item><item><volumeId>vol-2</volumeId><size>100</size><snapshotId/>\
             <availabilityZone>eu-central-1a</availabilityZone><status>in-use</status><attachmentSet><item>\
             <volumeId>vol-2</volumeId><instanceId>i-1</instanceId><device>/dev/sdf</device>\
             <status>attaching</status></item></attachmentSet></item></volumeSet>",
        ),
        other => panic!("no answer for {other}"),
    };
    Response::new(200, body).with("content-type", "text/xml")
}

/// The operation of a request, as IAM would name it without the service.
pub(crate) fn operation(request: &Request) -> String {
    if let Some((_, operation)) = request.header("x-amz-target").split_once('.') {
        return operation.to_owned();
    }
    let action = request
        .body
        .split('&')
        .find_map(|pair| pair.strip_prefix("Action="));
    action.unwrap().to_owned()
}

/// All services at their best.
pub(crate) fn aws(request: &Request) -> Response {
    let target = request.header("x-amz-target");
    match operation(request).as_str() {
        "GetParameters" => parameters(),
        "GetServiceSetting" => Response::new(
            200,
            r#"{"ServiceSetting": {"SettingId": "/ssm/parameter-store/high-throughput-enabled",
                "SettingValue": "false", "Status": "Default"}}"#,
        ),
        "DescribeInstances" if request.body.contains("DryRun=true") => Response::new(
            412,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>DryRunOperation</Code>\
             <Message>Request would have succeeded, but DryRun flag is set.</Message></Error></Errors>\
             <RequestID>7a62</RequestID></Response>",
        ),
        "GetAuthorizationToken" if target.starts_with("SpencerFrontendService") => public_token(PLANTED),
        "GetAuthorizationToken" => token(PLANTED, Duration::from_hours(12)),
        operation => query(operation),
    }
}
