//! systemd's own reading of the units of the image together with the drop-ins that are rendered: `systemd --test`
//! loads them as it would at boot, shows what it understood, and starts nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cos_agent::node::render::{self, CONSUL_DROP_IN, DesiredState, Init, NOMAD_DROP_IN, Version};
use cos_agent::node::secrets::Fetched;

use crate::converge::spec;
use crate::machine::{self, Machine};

const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// What systemd understands of a unit; none where there is no systemd to ask.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so, loudly")]
fn understood(service: &str, desired: &DesiredState, drop_in: &str) -> Option<String> {
    let program = SYSTEMD.into_iter().find(|path| Path::new(path).is_file());
    let (Some(program), true) = (program, nix::unistd::Uid::effective().is_root()) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have systemd, and root to ask it as nobody"
        );
        eprintln!("SKIPPED: nobody read the drop-ins; it needs systemd, and root to ask it as nobody");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let place = |name: &str| folder.path().join(name);
    let unit = format!("{}/../systemd/{service}.service", env!("CARGO_MANIFEST_DIR"));
    fs::copy(unit, place(&format!("{service}.service"))).unwrap();
    fs::create_dir_all(place(&format!("{service}.service.d"))).unwrap();
    let content = &desired.files[drop_in].as_ref().unwrap().content;
    fs::write(place(&format!("{service}.service.d/10-cos.conf")), content).unwrap();
    fs::create_dir(place("run")).unwrap();
    nix::unistd::chown(&place("run"), Some(65534.into()), Some(65534.into())).unwrap();
    let run = place("run").to_string_lossy().into_owned();
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            program,
            "--user",
            "--test",
        ])
        .arg(format!("--unit={service}.service"))
        .env_clear()
        .env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:/usr/lib/systemd/user", folder.path().display()),
        )
        .env("XDG_RUNTIME_DIR", &run)
        .env("HOME", &run)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    let start = format!("-> Unit {service}.service:");
    let shown = said
        .split(&start)
        .nth(1)
        .unwrap_or_else(|| panic!("systemd did not load it: {said}"));
    Some(shown.split("\n\t-> Unit ").next().unwrap().to_owned())
}

#[track_caller]
fn assert_shows(shown: &str, line: &str) {
    assert!(
        shown.lines().any(|shown| shown.trim() == line),
        "`{line}` is not in\n{shown}"
    );
}

fn rendered(document: &str, nomad: (u32, u32, u32)) -> DesiredState {
    let mut versions = machine::versions((1, 21, 0), nomad);
    versions.init = Init::Systemd(Version::new(252, 0, 0));
    let spec = spec(document);
    render::render(
        &spec,
        &Machine::new().installed(versions),
        &Fetched::placeholders(&spec),
    )
    .unwrap()
}

#[test]
fn systemd_reads_what_was_said_of_consul() {
    let document = r#"
version: 1
role: nomad-client
consul:
  retry_join: [192.0.2.1]
  data_dir: /data/consul
  service:
    user: ec2-user
    environment:
      PLAIN: value
      EMPTY: ""
      HARD: 'a "b" \x41 %n 100% $HOME ''c'' é €'
      TRICK: '\" Environment=X=y'
      SPACES: '  two  '
    standard_output: append:/var/log/consul.log
    standard_error: file:/var/log/consul.err
"#;
    let Some(shown) = understood("consul", &rendered(document, (1, 11, 0)), CONSUL_DROP_IN) else {
        return;
    };
    for line in [
        "User: ec2-user",
        "Environment: PLAIN=value",
        "Environment: EMPTY=",
        r#"Environment: HARD=a "b" \x41 %n 100% $HOME 'c' é €"#,
        r#"Environment: TRICK=\" Environment=X=y"#,
        "Environment: SPACES=  two",
        "StandardOutput: append",
        "StandardError: file",
        "Command Line: /opt/consul/bin/consul agent -config-dir=/opt/consul/config -data-dir=/data/consul",
        "Type: notify",
    ] {
        assert_shows(&shown, line);
    }
    let count = |start: &str| {
        shown
            .lines()
            .filter(|line| line.trim().starts_with(start))
            .count()
    };
    assert_eq!(count("Environment: "), 5, "{shown}");
    assert_eq!(count("Command Line: /opt/consul"), 1, "{shown}");
}

#[test]
fn systemd_reads_what_was_said_of_nomad() {
    let client =
        "{version: 1, role: nomad-client, consul: {retry_join: [192.0.2.1]}, nomad: {drain_deadline: 10m}}";
    let server =
        "{version: 1, role: nomad-server, consul: {retry_join: [192.0.2.1]}, nomad: {bootstrap_expect: 3}}";
    for (document, nomad, lines) in [
        (
            client,
            (1, 11, 0),
            &[
                "Type: notify",
                "TimeoutStopSec: 10min 30s",
                "KillSignal: SIGINT",
                "User: root",
            ][..],
        ),
        (
            server,
            (1, 11, 0),
            &[
                "Type: notify",
                "TimeoutStopSec: 1min 30s",
                "User: nomad",
                "Group: nomad",
            ],
        ),
        (
            server,
            (1, 7, 7),
            &["Type: simple", "KillSignal: SIGINT", "User: nomad"],
        ),
    ] {
        let Some(shown) = understood("nomad", &rendered(document, nomad), NOMAD_DROP_IN) else {
            return;
        };
        for line in lines {
            assert_shows(&shown, line);
        }
    }
}
