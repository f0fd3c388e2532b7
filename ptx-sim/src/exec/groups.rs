//! Bulk stores of a warp that have not ended.

use crate::report::RawPlace;
use crate::tensor::TensorMap;

/// Where a bulk store goes, and where a bulk load comes from.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Tile {
        map: TensorMap,
        at: Vec<i32>,
    },
    Bytes(u64),
    /// The own block's shared memory, which bulk copies to other blocks read.
    Shared(u32),
}

/// A bulk store.
#[derive(Debug)]
pub(super) struct Store {
    /// Who issued it.
    pub at: RawPlace,
    /// The group of the lane that it belongs to, once there is one.
    pub group: Option<u32>,
    pub offset: u32,
    pub len: u32,
    pub target: Target,
    /// What it found in shared memory, once it has read that.
    pub bytes: Option<Vec<u8>>,
    /// Its lane has waited for the read.
    pub read: bool,
}

/// The bulk stores of a warp. Each lane has groups of its own.
#[derive(Debug, Default)]
pub(super) struct BulkGroups {
    stores: Vec<Store>,
    /// Groups that each lane has closed.
    closed: [u32; 32],
}

impl BulkGroups {
    /// Begins the next block.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn issue(&mut self, store: Store) {
        self.stores.push(store);
    }

    /// `cp.async.bulk.commit_group` of these lanes.
    pub fn commit(&mut self, mask: u32) {
        for store in self.stores.iter_mut().filter(|store| store.group.is_none() && mask >> store.at.lane & 1 == 1) {
            store.group = Some(self.closed[store.at.lane as usize]);
        }
        for (lane, closed) in self.closed.iter_mut().enumerate() {
            *closed += mask >> lane & 1;
        }
    }

    /// Takes out the stores that end when these lanes wait until at most `open` groups are left, oldest first.
    pub fn due(&mut self, mask: u32, open: u32) -> Vec<Store> {
        let closed = self.closed;
        let is_due = |store: &mut Store| {
            let older = |group: u32| group.saturating_add(open) < closed[store.at.lane as usize];
            mask >> store.at.lane & 1 == 1 && store.group.is_some_and(older)
        };
        self.stores.extract_if(.., is_due).collect()
    }

    /// Takes out all stores of these lanes.
    pub fn all(&mut self, mask: u32) -> Vec<Store> {
        self.stores.extract_if(.., |store| mask >> store.at.lane & 1 == 1).collect()
    }
}
