//! Takes back what was made, unless it is kept.

type Step<'a> = Box<dyn FnOnce() -> anyhow::Result<()> + 'a>;

/// Stands behind each thing that is made and says how to take it back. Dropped, it does so; the last made goes first,
/// as locals are dropped.
pub struct Undo<'a> {
    what: &'static str,
    step: Option<Step<'a>>,
}

impl<'a> Undo<'a> {
    pub fn new(what: &'static str, step: impl FnOnce() -> anyhow::Result<()> + 'a) -> Self {
        Self { what, step: Some(Box::new(step)) }
    }

    /// What was made stays.
    pub fn commit(mut self) {
        self.step = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.step.take().map(|step| step()) {
            crate::log::warning(&format!("undoing the {}: {error:#}", self.what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_last_made_goes_first_unless_committed() {
        for (commit, want) in [(false, vec!["b", "a"]), (true, vec!["a"])] {
            let seen = RefCell::new(Vec::new());
            let note = |what| {
                seen.borrow_mut().push(what);
                Ok(())
            };
            let first = Undo::new("first", || note("a"));
            let second = Undo::new("second", || note("b"));
            if commit {
                second.commit();
            } else {
                drop(second);
            }
            drop(first);
            assert_eq!(seen.into_inner(), want);
        }
    }
}
