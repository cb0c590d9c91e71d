//! Owns the system users that the manifest names.
//! Touches the machine's accounts through `useradd`, or `adduser` where that is all there is.

use std::time::Duration;

use super::error::BuilderError;
use super::machine::Machine;
use crate::bundle::User;

/// Longest time to add one user; locks of the password file are waited for by the program itself.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes the users that do not exist yet and returns their names.
pub(crate) fn make_users(machine: &Machine<'_>, users: &[User]) -> Result<Vec<String>, BuilderError> {
    let mut made = Vec::new();
    for user in users {
        if machine.accounts()?.find(&user.name).is_some() {
            continue;
        }
        make_user(machine, user)?;
        if machine.accounts()?.find(&user.name).is_none() {
            return Err(BuilderError::Step {
                step: format!("make the user {}", user.name),
                reason: "the program reported success, but /etc/passwd and /etc/group do not name it"
                    .to_owned(),
            });
        }
        made.push(user.name.clone());
    }
    Ok(made)
}

fn make_user(machine: &Machine<'_>, user: &User) -> Result<(), BuilderError> {
    // Amazon Linux 1 has no merged /usr, Debian may have the program only there.
    let shell = machine
        .find_program("nologin")
        .unwrap_or_else(|| "/bin/false".to_owned());
    let step = format!("make the user {}", user.name);
    let (program, options) = if let Some(useradd) = machine.find_program("useradd") {
        (
            useradd,
            ["--system", "--user-group", "--no-create-home", "--home-dir"],
        )
    } else if let Some(adduser) = machine.find_program("adduser") {
        (adduser, ["--system", "--group", "--no-create-home", "--home"])
    } else {
        return Err(BuilderError::Step {
            step,
            reason: "neither useradd nor adduser is installed".to_owned(),
        });
    };
    let arguments = [&options[..], &[&user.home, "--shell", &shell, &user.name]].concat();
    machine
        .check(&program, &arguments, DEADLINE)
        .map(|_| ())
        .map_err(BuilderError::program(&step))
}
