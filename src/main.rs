//! Parse, run, print the error once, choose the exit status.

use std::process::ExitCode;

use rrun::launch::seal;
use rrun::sys::allocator::Allocator;
use rrun::{cli, error, log};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        log::error(&format!("a defect of rrun, please report it: {}", panic.to_string().replace('\n', " ")));
    }));
    seal::ahead(std::env::args_os().skip(1));
    let request = match cli::parse(std::env::args_os().skip(1)) {
        Ok(request) => request,
        Err(misuse) => {
            log::error(&misuse.line);
            return ExitCode::from(misuse.status);
        }
    };
    match request.run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            log::error(&error::line(&error, request.wording()));
            ExitCode::from(request.failure())
        }
    }
}
