//! The seed corpus of the fuzz target `schema_decode`, replayed through the function that the target calls; and random bytes.

#[path = "../../../fuzz/src/schema_decode.rs"]
mod schema_decode;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/schema_decode");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        schema_decode::schema_decode(&fs::read(&path).expect("readable"));
        count += 1;
    }
    assert!(count >= 10, "only {count} seeds in {}", folder.display());
}

proptest! {
    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        schema_decode::schema_decode(&data);
    }
}
