//! What a file keeps from use: the numbers and names that its messages and enums had once.

use prost::Message;

use super::DescriptorError;
use super::file::{Enum, FileSet, Type};

/// Numbers and names that a message or an enum does not use again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reserved {
    /// First and last number of each range.
    pub numbers: Vec<(i32, i32)>,
    /// Names of fields, or of an enum's values.
    pub names: Vec<String>,
}

/// The full names of all messages and enums of one file of an encoded `FileDescriptorSet`, with what each has reserved.
///
/// # Errors
/// [`DescriptorError::Bytes`]: the bytes are no such set.
pub fn reserved_of_set(bytes: &[u8], file: &str) -> Result<Vec<(String, Reserved)>, DescriptorError> {
    let set = FileSet::decode(bytes)?;
    let mut found = Vec::new();
    for file in set.file.iter().filter(|one| one.name == file) {
        file.enum_type.iter().for_each(|shape| of_enum(&file.package, shape, &mut found));
        file.message_type.iter().for_each(|shape| of_message(&file.package, shape, &mut found));
    }
    Ok(found)
}

/// As deep as `FileSet::decode` lets messages nest.
fn of_message(scope: &str, shape: &Type, found: &mut Vec<(String, Reserved)>) {
    if shape.options.is_some_and(|options| options.map_entry) {
        return;
    }
    let name = within(scope, &shape.name);
    let numbers =
        shape.reserved_range.iter().map(|range| (range.start, range.end.saturating_sub(1))).collect();
    found.push((name.clone(), Reserved { numbers, names: shape.reserved_name.clone() }));
    shape.enum_type.iter().for_each(|nested| of_enum(&name, nested, found));
    shape.nested_type.iter().for_each(|nested| of_message(&name, nested, found));
}

fn of_enum(scope: &str, shape: &Enum, found: &mut Vec<(String, Reserved)>) {
    let numbers = shape.reserved_range.iter().map(|range| (range.start, range.end)).collect();
    found.push((within(scope, &shape.name), Reserved { numbers, names: shape.reserved_name.clone() }));
}

fn within(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::descriptor_set_of_text;

    #[test]
    fn ranges_hold_their_ends() {
        let text = r#"
            syntax = "proto3";
            package arena;
            message Move {
              reserved 1, 3 to 5, 100 to max;
              reserved "x", "y";
              map<string, Kind> kinds = 2;
              enum Kind { NONE = 0; reserved -3 to -1, 9; reserved "OLD"; }
            }
        "#;
        let set = descriptor_set_of_text("a.proto", text).expect("it is protobuf");
        let reserved = |numbers: &[(i32, i32)], names: &[&str]| Reserved {
            numbers: numbers.to_vec(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(
            reserved_of_set(&set, "a.proto").expect("a set"),
            [
                ("arena.Move".to_owned(), reserved(&[(1, 1), (3, 5), (100, 536_870_911)], &["x", "y"])),
                ("arena.Move.Kind".to_owned(), reserved(&[(-3, -1), (9, 9)], &["OLD"])),
            ]
        );
        assert_eq!(reserved_of_set(&set, "b.proto").expect("a set"), []);
    }
}
