//! Parse, run, print the error once, choose the exit status. `main` and the allocator are rrun's own, since the usual ones
//! take a good part of a process that lives for milliseconds: src/sys/start.rs, src/sys/allocator.rs.
#![no_main]

use rrun::launch::seal;
use rrun::sys::allocator::Allocator;
use rrun::sys::start;
use rrun::{cli, error, log};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

rrun::start!(rrun);

/// The exit status.
fn rrun() -> u8 {
    std::panic::set_hook(Box::new(|panic| {
        log::error(&format!("a defect of rrun, please report it: {}", panic.to_string().replace('\n', " ")));
    }));
    seal::ahead(start::words().skip(1));
    let request = match cli::parse(start::words().skip(1)) {
        Ok(request) => request,
        Err(misuse) => {
            log::error(&misuse.line);
            return misuse.status;
        }
    };
    match request.run() {
        Ok(status) => status,
        Err(error) => {
            log::error(&error::line(&error, request.wording()));
            request.failure()
        }
    }
}
