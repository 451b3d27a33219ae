//! The seed corpus of the fuzz target `link`, replayed through the function that the target calls; and random bytes.

#[path = "../../../fuzz/src/link.rs"]
mod link;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/link");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        link::link(&fs::read(&path).expect("readable"));
        count += 1;
    }
    assert!(count >= 10, "only {count} seeds in {}", folder.display());
}

proptest! {
    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        link::link(&data);
    }
}
