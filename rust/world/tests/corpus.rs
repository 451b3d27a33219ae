//! The seed corpus of the fuzz target `world_replica`, replayed through the function that the target calls; and random bytes.

#[path = "../../../fuzz/src/world_replica.rs"]
mod world_replica;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn the_seed_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/world_replica");
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is tracked") {
        world_replica::world_replica(&fs::read(entry.expect("readable").path()).expect("readable"));
        seeds += 1;
    }
    assert!(seeds >= 8, "{seeds} seeds");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_snapshots_or_refused(data in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..16], 0..120)) {
        world_replica::world_replica(&data);
    }
}
