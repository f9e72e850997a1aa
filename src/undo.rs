//! Takes back what was made, in reverse, unless it is kept.

/// Each thing made is followed by a line saying how to take it back. Dropped without `commit`, all of them run.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<(&'static str, Box<dyn FnOnce() -> anyhow::Result<()> + 'a>)>,
}

impl<'a> Undo<'a> {
    pub fn later(&mut self, what: &'static str, step: impl FnOnce() -> anyhow::Result<()> + 'a) {
        self.steps.push((what, Box::new(step)));
    }

    pub fn commit(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for (what, step) in self.steps.drain(..).rev() {
            if let Err(error) = step() {
                crate::log::warning(&format!("undoing the {what}: {error:#}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn runs_in_reverse_unless_committed() {
        for (commit, want) in [(false, vec!["b", "a"]), (true, vec![])] {
            let seen = RefCell::new(Vec::new());
            let mut undo = Undo::default();
            let note = |what| {
                seen.borrow_mut().push(what);
                Ok(())
            };
            undo.later("first", || note("a"));
            undo.later("second", || note("b"));
            if commit { undo.commit() } else { drop(undo) }
            assert_eq!(seen.into_inner(), want);
        }
    }
}
