use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

fn reply(status: u16, body: &str, error_type: Option<&str>) -> Reply {
    Reply {
        status,
        body: Zeroizing::new(body.as_bytes().to_vec()),
        date: None,
        request_id: None,
        error_type: error_type.map(str::to_owned),
    }
}

fn read(status: u16, body: &str) -> Refusal {
    Refusal::read(&reply(status, body, None))
}

fn verdict(status: u16, code: &str, message: &str) -> Verdict {
    let refusal = Refusal {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    };
    refusal.verdict(SystemTime::now(), None)
}

#[test]
fn every_form_of_an_error_is_read() {
    let expected = |status, code: &str, message: &str| Refusal {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    };
    for (body, code, message) in [
        (
            r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
            "ThrottlingException",
            "Rate exceeded",
        ),
        (
            r#"{"__type":"com.amazonaws.ssm#InvalidKeyId","Message":"no key"}"#,
            "InvalidKeyId",
            "no key",
        ),
        (
            r#"{"code":"ServerException:http://x","message":"m"}"#,
            "ServerException",
            "m",
        ),
        (
            "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
             <Code>ValidationError</Code><Message>no group</Message></Error><RequestId>1</RequestId></ErrorResponse>",
            "ValidationError",
            "no group",
        ),
        (
            "<?xml version=\"1.0\"?>\n<Response><Errors><Error><Code>RequestLimitExceeded</Code>\
             <Message>Request limit exceeded.</Message></Error></Errors><RequestID>1</RequestID></Response>",
            "RequestLimitExceeded",
            "Request limit exceeded.",
        ),
        ("<html>proxy</html>", "", ""),
        ("", "", ""),
    ] {
        assert_eq!(read(400, body), expected(400, code, message), "{body}");
    }
    let header = Refusal::read(&reply(400, "{}", Some("AccessDeniedException:http://internal/")));
    assert_eq!(header.code, "AccessDeniedException");
}

#[test]
fn each_code_calls_for_its_own() {
    for code in THROTTLING {
        assert_eq!(verdict(400, code, ""), Verdict::Throttled, "{code}");
    }
    assert_eq!(verdict(503, "SlowDown", ""), Verdict::Throttled);
    assert_eq!(verdict(429, "", ""), Verdict::Throttled);
    for code in PASSING {
        assert_eq!(verdict(400, code, ""), Verdict::Passing, "{code}");
    }
    for status in [408, 500, 502, 503, 504] {
        assert_eq!(verdict(status, "", ""), Verdict::Passing, "{status}");
    }
    for code in CREDENTIALS {
        assert_eq!(verdict(400, code, ""), Verdict::Credentials, "{code}");
    }
    for code in CLOCK {
        assert_eq!(verdict(403, code, ""), Verdict::Clock, "{code}");
    }
    assert_eq!(verdict(400, "ValidationException", ""), Verdict::Final);
    assert_eq!(verdict(301, "", ""), Verdict::Final);
}

#[test]
fn a_refused_signature_is_about_the_clock_only_if_the_clocks_differ() {
    let refusal = |message: &str| Refusal {
        status: 403,
        code: "InvalidSignatureException".to_owned(),
        message: message.to_owned(),
    };
    let here = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let wrong = refusal("The request signature we calculated does not match the signature you provided.");
    assert_eq!(
        wrong.verdict(here, Some(here + Duration::from_mins(3))),
        Verdict::Final
    );
    assert_eq!(wrong.verdict(here, None), Verdict::Final);
    for there in [here + Duration::from_hours(1), here - Duration::from_mins(5)] {
        assert_eq!(wrong.verdict(here, Some(there)), Verdict::Clock);
    }
    let told = refusal("Signature expired: 20260101T000000Z is now earlier than 20260101T005500Z");
    assert_eq!(told.verdict(here, Some(here)), Verdict::Clock);
}

#[test]
fn a_denial_names_the_action_that_is_missing() {
    let denied = |code: &str, message: &str| match verdict(400, code, message) {
        Verdict::Denied { action, resource } => (action, resource),
        other => panic!("{other:?}"),
    };
    let user =
        "User: arn:aws:sts::123456789012:assumed-role/node/i-0123456789abcdef0 is not authorized to perform:";
    assert_eq!(
        denied(
            "AccessDeniedException",
            &format!(
                "{user} ssm:GetParameters on resource: arn:aws:ssm:eu-central-1:123456789012:parameter/cos/key \
                 because no identity-based policy allows the ssm:GetParameters action"
            )
        ),
        (
            Some("ssm:GetParameters".to_owned()),
            Some("arn:aws:ssm:eu-central-1:123456789012:parameter/cos/key".to_owned())
        )
    );
    assert_eq!(
        denied(
            "UnauthorizedOperation",
            &format!("You are not authorized. {user} ec2:DescribeTags.")
        ),
        (Some("ec2:DescribeTags".to_owned()), None)
    );
    let key = "The ciphertext refers to a customer master key that does not exist, does not exist in this region, \
               or you are not allowed to access.";
    assert_eq!(
        denied("AccessDeniedException", key),
        (Some("kms:Decrypt".to_owned()), None)
    );
    assert_eq!(denied("AccessDenied", ""), (None, None));
}

proptest! {
    #[test]
    fn no_answer_brings_it_down(status in 0_u16..1000, body in any::<Vec<u8>>(), kind in ".*") {
        let mut reply = reply(status, "", Some(&kind));
        reply.body = Zeroizing::new(body);
        let refusal = Refusal::read(&reply);
        let _ = refusal.verdict(SystemTime::now(), Some(SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn no_text_that_looks_like_an_error_brings_it_down(
        body in r#"(<(Error|Code|Message|Response|!\[CDATA\[|\?xml)/?>?|\{|\}|"(__type|message)":|[a-z "]){0,40}"#
    ) {
        let _ = read(400, &body);
    }
}
