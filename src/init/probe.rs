//! What can be found out by trying, without a container: by the child's own steps, in a process that ends after them and
//! takes the namespaces that it was made in with it. Each failure is told, and the next step is tried.

use anyhow::Result;

use super::steps;
use super::{Handles, Init, tell_of_panics};
use crate::error::Report;
use crate::plan::Plan;
use crate::procfs::Proc;
use crate::protocol::Ask;
use crate::rootfs::{Rootfs, open_host_directory};

pub fn main(plan: &Plan, handles: Handles) -> i32 {
    let mut init = Init::new(Some(plan), &plan.process, handles);
    tell_of_panics(&init.handles.channel);
    let ready = init.open_for_probes(plan);
    let tried = ready.map(|()| steps::probes(plan)).unwrap_or_default();
    for step in &tried {
        if let Err(error) = init.perform_named(step) {
            let _ = init.handles.channel.ask(&Ask::Failed(Report::of(&error)), None);
        }
    }
    // see `Init::run`
    std::mem::forget(init);
    0
}

impl Init<'_> {
    fn open_for_probes(&mut self, plan: &Plan) -> Result<()> {
        self.rootfs = Some(Rootfs::new(open_host_directory(&plan.root.path)?));
        self.procfs = Some(Proc::open()?.into());
        Ok(())
    }
}
