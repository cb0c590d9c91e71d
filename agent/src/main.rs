//! `cos-agent`: parses the command line, runs one room, prints the error chain once, and exits with a documented code.
//! Under another name it is another program.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use cos_agent::cli::{self, Cli};
use cos_agent::node::shims;
use cos_agent::{error, output};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some((program, rest)) = arguments.split_first()
        && let Some(run) = cli::personality(program)
    {
        return run(rest);
    }
    let cli = match Cli::try_parse_from(shims::by_name(arguments)) {
        Ok(cli) => cli,
        // Help and version come this way too, with code 0; wrong usage has code 2.
        Err(message) => {
            let _ = message.print();
            return u8::try_from(message.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::from(error::Exit::Done as u8),
        Err(failure) => {
            output::talk(&error::chain(&failure));
            if let Some(hint) = failure.hint() {
                output::talk(&format!("hint: {hint}"));
            }
            ExitCode::from(failure.exit() as u8)
        }
    }
}
