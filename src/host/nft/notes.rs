//! Rulesets of the host that were loaded and are being noted. A listing of a large table takes as long as loading it, and
//! nothing that is made next has to wait for it: it is taken beside that, and whoever looks at the table afterwards has it
//! from here. Tables in namespaces are small, and there may be hundreds, so those are noted at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::TableState;
use crate::error::{Context, Error, Kind, Result};
use crate::host::labdir::LabDir;
use crate::resource::{Place, Ruleset, RulesetFamily};

/// One that is being noted.
struct Note {
    ruleset: Ruleset,
    /// Whether the table is still there.
    listed: JoinHandle<Result<bool>>,
}

/// Those of one lab. They come to their end before this goes.
#[derive(Default)]
pub(crate) struct Notes {
    under_way: Mutex<Vec<Note>>,
    /// Whether what is found to be as it was loaded is noted to be so today.
    renews: AtomicBool,
}

impl Notes {
    /// From now on nobody else changes the lab.
    pub(crate) fn renew(&self) {
        self.renews.store(true, Ordering::Relaxed);
    }

    /// Loads a ruleset in one transaction, and notes how the kernel lists it, or begins to.
    ///
    /// # Errors
    /// Exit 3 when `nft` is missing, exit 4 when the kernel refuses the script.
    pub(crate) fn load(&self, dir: &LabDir, ruleset: Ruleset) -> Result<()> {
        if ruleset.place != Place::Host {
            super::load(&ruleset)?;
            return super::note(dir, &ruleset).map(drop);
        }
        self.settle(&ruleset);
        super::load(&ruleset)?;
        let (dir, noted) = (dir.clone(), ruleset.clone());
        let listed = std::thread::Builder::new()
            .name("nft".into())
            .spawn(move || super::note(&dir, &noted))
            .context(|| "cannot start a thread".into())?;
        self.lock().push(Note { ruleset, listed });
        Ok(())
    }

    /// Looks at a table that is there; `None` when it is gone. One of the host that was loaded since the last look is as it was
    /// listed then.
    ///
    /// # Errors
    /// Exit 3 when `nft` is missing, or when what was loaded could not be noted: another look would only find that out of the
    /// table's being unknown.
    pub(crate) fn observe(
        &self,
        dir: &LabDir,
        place: &Place,
        family: RulesetFamily,
        table: &str,
    ) -> Result<Option<TableState>> {
        let noted = if *place == Place::Host { self.take(family, table) } else { None };
        match noted {
            None => super::observe(dir, place, family, table, self.renews.load(Ordering::Relaxed)),
            Some(note) => {
                let script = Some(note.ruleset.script);
                let there = joined(note.listed).map_err(|mut e| {
                    e.kind = Kind::Host;
                    e
                })?;
                Ok(there.then_some(TableState { script, intact: true }))
            }
        }
    }

    /// Waits for what is being noted of a table: it is about to change, and what was noted of it with it.
    pub(crate) fn settle(&self, ruleset: &Ruleset) {
        if ruleset.place == Place::Host
            && let Some(note) = self.take(ruleset.family, &ruleset.table)
        {
            let _ = joined(note.listed);
        }
    }

    /// Waits for all of it.
    pub(crate) fn settle_all(&self) {
        for note in std::mem::take(&mut *self.lock()) {
            let _ = joined(note.listed);
        }
    }

    fn take(&self, family: RulesetFamily, table: &str) -> Option<Note> {
        let mut notes = self.lock();
        let it = |note: &Note| note.ruleset.family == family && note.ruleset.table == table;
        let index = notes.iter().position(it)?;
        Some(notes.swap_remove(index))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Note>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.settle_all();
    }
}

fn joined(listed: JoinHandle<Result<bool>>) -> Result<bool> {
    listed.join().unwrap_or_else(|_| Err(Error::failed("a worker failed")))
}
