//! Virtual machines.

use crate::Result;
use crate::figures::Store;
use crate::measure::Tools;

pub(crate) fn measure(_: &Tools, store: &mut Store, _: usize, _: &[usize]) -> Result<()> {
    store.missing("machines", "not written yet");
    Ok(())
}
