//! The seed corpora of the fuzz targets, replayed through the functions that the targets call.

#[path = "../../../fuzz/src/codecs.rs"]
mod codecs;

use std::fs;
use std::path::Path;

#[test]
fn packets() {
    replay("packets", codecs::packets);
}

#[test]
fn messages() {
    replay("messages", codecs::messages);
}

#[test]
fn upgrade() {
    replay("upgrade", codecs::upgrade);
}

#[test]
fn websocket_frames() {
    replay("websocket_frames", codecs::websocket_frames);
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("readable"));
        count += 1;
    }
    assert!(count >= 10, "only {count} seeds in {}", folder.display());
}
