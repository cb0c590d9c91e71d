//! The credential helper as Docker and Nomad call it: processes by its name, a question on standard input, against an
//! ECR and a metadata service that count.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use cos_agent::ecr::NAME;
use serde_json::Value;

use crate::fake::{self, PLANTED, json_error, token};
use crate::node::{HOST, Node, ask, finish};
use crate::server::Response;

const TWELVE_HOURS: Duration = Duration::from_hours(12);

/// An ECR that gives `password-1`, `password-2` and so on, each after a while.
fn counting(after: Duration) -> impl FnMut(&crate::server::Request) -> Response {
    let mut given = 0;
    move |_| {
        given += 1;
        token(&format!("password-{given}"), TWELVE_HOURS).after(after)
    }
}

#[test]
fn fifty_pulls_at_once_make_one_call() {
    let node = Node::new(counting(Duration::from_millis(700)));
    let told = node.storm(50);
    assert_eq!(told.len(), 50);
    for told in &told {
        assert_eq!(told.password(), "password-1");
    }
    assert_eq!(node.calls(), 1);
    assert_eq!(
        node.imds.count("/latest/meta-data/iam/security-credentials/node"),
        1
    );
    assert_eq!(fake::operation(&node.ecr.asked()[0]), "GetAuthorizationToken");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&node.cache()), mode(&node.kept())), (0o700, 0o600));
}

#[test]
fn fifty_pulls_at_once_that_are_denied_make_one_call_and_all_say_why() {
    let node = Node::new(|_| {
        json_error(
            "AccessDeniedException",
            "User: arn:aws:sts::1:assumed-role/node/i-1 is not authorized to perform: ecr:GetAuthorizationToken on \
             resource: *",
        )
        .after(Duration::from_secs(2))
    });
    for told in node.storm(50) {
        assert_eq!(told.code, 1);
        // Docker and Nomad up to 1.9 show the one, Nomad since 1.10 the other.
        for text in [&told.out, &told.talk] {
            assert!(text.contains("ecr:GetAuthorizationToken"), "{text}");
            assert!(!text.contains("not found in native keychain"), "{text}");
        }
        assert_eq!(told.out.lines().count(), 1);
        assert!(
            told.talk.contains(r#""Action": "ecr:GetAuthorizationToken""#),
            "{}",
            told.talk
        );
    }
    assert_eq!(node.calls(), 1);
}

#[test]
fn a_login_serves_every_account_of_its_region_and_no_other_region() {
    let node = Node::new(counting(Duration::ZERO));
    // As Docker, old and new versions of Nomad, and people ask.
    for server in [
        HOST,
        "https://210987654321.dkr.ecr.eu-central-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/web:1",
    ] {
        let told = node.get(server);
        assert_eq!(told.password(), "password-1");
        assert_eq!(
            serde_json::from_str::<Value>(&told.out).unwrap()["ServerURL"],
            server
        );
    }
    assert_eq!(node.calls(), 1);
    let other = node
        .get("123456789012.dkr.ecr.us-east-1.amazonaws.com")
        .password();
    assert_eq!(other, "password-2");
    let scope = &node.ecr.asked()[1].header("authorization").to_owned();
    assert!(scope.contains("/us-east-1/ecr/aws4_request"), "{scope}");
    let listed = finish(ask(node.command("list"), "unused"));
    assert_eq!(
        serde_json::from_str::<Value>(&listed.out).unwrap(),
        serde_json::json!({"https://123456789012.dkr.ecr.eu-central-1.amazonaws.com": "AWS"})
    );
}

#[test]
fn the_public_registry_has_a_login_of_its_own() {
    let node = Node::new(fake::aws);
    assert_eq!(node.get("public.ecr.aws").password(), PLANTED);
    let asked = &node.ecr.asked()[0];
    assert!(
        asked
            .header("x-amz-target")
            .starts_with("SpencerFrontendService.")
    );
    assert!(
        asked
            .header("authorization")
            .contains("/us-east-1/ecr-public/aws4_request")
    );
}

#[test]
fn past_half_its_life_one_process_renews_it_and_the_others_do_not_wait() {
    let node = Node::new(counting(Duration::from_millis(1200)));
    node.get(HOST).password();
    node.age(Duration::from_hours(5));
    assert_eq!(node.get(HOST).password(), "password-1");
    assert_eq!(node.calls(), 1, "not yet");
    node.age(Duration::from_hours(2));
    let told = node.storm(20);
    let new = told.iter().filter(|told| told.password() == "password-2");
    assert_eq!(new.count(), 1);
    let slow = told
        .iter()
        .filter(|told| told.took >= Duration::from_millis(1200))
        .count();
    assert_eq!(slow, 1, "only who renews waits");
    assert_eq!(node.calls(), 2);
    assert_eq!(node.get(HOST).password(), "password-2");
}

#[test]
fn while_ecr_fails_a_login_that_has_not_ended_is_given() {
    let mut given = 0;
    let node = Node::new(move |_| {
        given += 1;
        if given == 1 {
            token("password", TWELVE_HOURS)
        } else {
            Response::new(500, "")
        }
    });
    node.get(HOST).password();
    node.age(Duration::from_hours(11));
    let told = node.get(HOST);
    assert_eq!(told.password(), "password");
    assert!(
        told.talk.contains("the old one holds for 59m") && told.talk.contains("answers 500"),
        "{}",
        told.talk
    );
    let calls = node.calls();
    let told = node.get(HOST);
    assert_eq!(told.password(), "password");
    assert_eq!(
        (node.calls(), told.talk.as_str()),
        (calls, ""),
        "not tried again at once"
    );

    node.age(Duration::from_hours(1));
    let told = node.get(HOST);
    assert_eq!(told.code, 1);
    assert!(told.out.contains("answers 500"), "{}", told.out);
}

#[test]
fn the_roles_new_access_key_loses_nothing() {
    let node = Node::new(counting(Duration::ZERO));
    for _ in 0..5 {
        // Each process asks the metadata service anew, which gives another key each time it is asked.
        assert_eq!(node.get(HOST).password(), "password-1");
    }
    assert_eq!(node.calls(), 1);
    // Somebody with keys of their own has a login of their own.
    let mut command = node.command("get");
    command
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", PLANTED);
    assert_eq!(finish(ask(command, HOST)).password(), "password-2");
    assert_eq!(node.ecr.asked()[1].key(), "AKIDEXAMPLE");
}

#[test]
fn other_registries_are_nobodys_business() {
    let node = Node::new(counting(Duration::ZERO));
    for server in [
        "https://index.docker.io/v1/",
        "ghcr.io",
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example",
    ] {
        let told = node.get(server);
        assert_eq!(
            (told.code, told.out.as_str()),
            (1, "credentials not found in native keychain\n")
        );
        assert!(told.talk.contains("is not an ECR registry"), "{}", told.talk);
    }
    assert_eq!(node.calls(), 0);
}

#[test]
fn a_hanging_ecr_holds_nobody_for_more_than_ten_seconds() {
    let node = Node::new(|_| Response::new(200, "{}").after(Duration::from_mins(2)));
    for told in node.storm(5) {
        assert_eq!(told.code, 1);
        assert!(told.took < Duration::from_secs(12), "{:?}", told.took);
        assert!(
            told.talk.contains("no answer in time") || told.talk.contains("another process"),
            "{}",
            told.talk
        );
    }
}

#[test]
fn who_is_killed_while_asking_holds_nobody() {
    let mut given = 0;
    let node = Node::new(move |_| {
        given += 1;
        let after = if given == 1 {
            Duration::from_mins(1)
        } else {
            Duration::ZERO
        };
        token("password", TWELVE_HOURS).after(after)
    });
    let (mut first, _) = ask(node.command("get"), HOST);
    while node.calls() == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let second = ask(node.command("get"), HOST);
    thread::sleep(Duration::from_millis(200));
    first.kill().unwrap();
    first.wait().unwrap();
    let told = finish(second);
    assert_eq!(told.password(), "password");
    assert!(told.took < Duration::from_secs(3), "{:?}", told.took);
}

#[test]
fn a_damaged_cache_is_replaced_and_an_impossible_one_is_done_without() {
    let node = Node::new(counting(Duration::ZERO));
    node.get(HOST).password();
    for damage in ["", "{", "null", "{\"user\": 1}"] {
        let calls = node.calls();
        std::fs::write(node.kept(), damage).unwrap();
        node.get(HOST).password();
        assert_eq!(node.calls(), calls + 1, "{damage:?}");
    }
    // A clock that was far ahead when the login came says nothing about its age.
    let calls = node.calls();
    node.change(|entry| {
        for time in ["received", "expires"] {
            entry[time] = (entry[time].as_u64().unwrap() + 48 * 3_600_000).into();
        }
    });
    node.get(HOST).password();
    assert_eq!(node.calls(), calls + 1);

    let calls = node.calls();
    std::fs::remove_dir_all(node.cache()).unwrap();
    std::fs::write(node.cache(), "a file").unwrap();
    for more in 1..=2 {
        let told = node.get(HOST);
        told.password();
        assert!(told.talk.contains("logins cannot be kept"), "{}", told.talk);
        assert_eq!(node.calls(), calls + more);
    }
    let mut command = node.command("get");
    command.env("AWS_ECR_DISABLE_CACHE", "1");
    let told = finish(ask(command, HOST));
    told.password();
    assert_eq!(told.talk, "");
}

#[test]
fn erase_forgets_and_store_is_refused_unless_it_is_to_be_ignored() {
    let node = Node::new(counting(Duration::ZERO));
    node.get(HOST).password();
    let erased = finish(ask(node.command("erase"), HOST));
    assert_eq!((erased.code, erased.out.as_str()), (0, ""));
    assert_eq!(node.get(HOST).password(), "password-2");

    let credentials = format!(r#"{{"ServerURL":"{HOST}","Username":"AWS","Secret":"{PLANTED}"}}"#);
    let refused = finish(ask(node.command("store"), &credentials));
    assert_eq!(refused.code, 1);
    assert!(
        !refused.out.contains(PLANTED) && !refused.talk.contains(PLANTED),
        "{}",
        refused.talk
    );
    let mut command = node.command("store");
    command.env("AWS_ECR_IGNORE_CREDS_STORAGE", "true");
    assert_eq!(finish(ask(command, &credentials)).code, 0);
    let version = finish(ask(node.command("version"), ""));
    assert!(
        version.out.starts_with("docker-credential-ecr-login "),
        "{}",
        version.out
    );
}

#[test]
fn under_the_agents_own_name_it_is_a_command() {
    let node = Node::new(counting(Duration::ZERO));
    let ask_agent = |server: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cos-agent"));
        command
            .args(["ecr-login", "get", "--cache"])
            .arg(node.folder.path().join("elsewhere"))
            .env_clear()
            .env("AWS_ENDPOINT_URL", &node.ecr.url)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &node.imds.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(ask(command, server))
    };
    assert_eq!(ask_agent(HOST).password(), "password-1");
    assert_eq!(ask_agent(HOST).password(), "password-1");
    assert!(node.folder.path().join("elsewhere").is_dir());
    let other = ask_agent("ghcr.io");
    assert_eq!(
        (other.code, other.out.as_str()),
        (2, "credentials not found in native keychain\n")
    );
}

#[test]
fn nothing_that_is_kept_or_said_about_a_failure_holds_a_secret() {
    let node = Node::new(|_| Response::new(200, format!("{{\"authorizationData\": [\"{PLANTED}\"]}}")));
    let mut command = node.command("get");
    command
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", PLANTED);
    let told = finish(ask(command, HOST));
    assert_eq!(told.code, 1);
    assert!(
        !told.out.contains(PLANTED) && !told.talk.contains(PLANTED),
        "{}",
        told.talk
    );
    let mut kept = 0;
    for entry in std::fs::read_dir(node.cache()).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains(PLANTED));
        kept += 1;
    }
    assert!(kept > 0);
}

/// The figure is for the released program, which `./dev test` names (`COS_TESTS_BIN`); the one of a test build is
/// measured otherwise, and held to ten times as much.
#[test]
fn a_warm_answer_takes_milliseconds() {
    let node = Node::new(counting(Duration::ZERO));
    let released = std::env::var_os("COS_TESTS_BIN").map(|folder| Path::new(&folder).join("cos-agent"));
    let released = released.filter(|path| path.is_file());
    let most = if let Some(program) = &released {
        std::fs::remove_file(node.folder.path().join(NAME)).unwrap();
        symlink(program, node.folder.path().join(NAME)).unwrap();
        Duration::from_millis(5)
    } else {
        Duration::from_millis(50)
    };
    node.get(HOST).password();
    let asked = (node.calls(), node.imds.asked().len());
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            let told = node.get(HOST);
            told.password();
            told.took
        })
        .collect();
    assert_eq!((node.calls(), node.imds.asked().len()), asked, "nobody was asked");
    took.sort();
    let median = took[took.len() / 2];
    eprintln!(
        "warm answer of {}: median {median:?}, fastest {:?}, 95 of 100 within {:?}, slowest {:?}",
        released
            .as_deref()
            .map_or("a test build".into(), Path::to_string_lossy),
        took[0],
        took[took.len() * 95 / 100],
        took[took.len() - 1]
    );
    assert!(median <= most, "{median:?}");
}

#[test]
fn a_login_that_is_about_to_end_is_not_given() {
    // Half a minute before its end a login is not given out any more: a pull takes longer than that.
    let node = Node::new(counting(Duration::ZERO));
    node.get(HOST).password();
    let end = SystemTime::now() + Duration::from_secs(30);
    let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    node.change(|entry| entry["expires"] = u64::try_from(end).unwrap().into());
    assert_eq!(node.get(HOST).password(), "password-2");
}
