//! A world's shape as clients are told of it, in JSON: docs/wire.md, "The world".

use serde_json::{Map, Value as Json, json};

use crate::shape::{Audience, ColumnShape, Kind, Number, Placement, ShapeError, TableShape, WorldShape};

impl WorldShape {
    /// The tables as JSON, in their order, without what is sent to nobody.
    pub fn to_json(&self) -> String {
        self.for_clients().tables().iter().map(table_to_json).collect::<Json>().to_string()
    }

    /// The shape that [`WorldShape::to_json`] tells of.
    ///
    /// # Errors
    ///
    /// It is no such JSON, or the tables don't fit each other.
    pub fn from_json(text: &str) -> Result<Self, ShapeError> {
        let json: Json = serde_json::from_str(text).map_err(|error| wrong("", "", &error.to_string()))?;
        let tables = json.as_array().ok_or_else(|| wrong("", "", "the world is no list of tables"))?;
        Self::new(tables.iter().map(table_from_json).collect::<Result<_, _>>()?)
    }
}

fn table_to_json(table: &TableShape) -> Json {
    let mut json = json!({
        "name": table.name,
        "columns": table.columns.iter().map(column_to_json).collect::<Vec<_>>(),
    });
    if let Placement::Spatial(position) = &table.placement {
        json["position"] = json!(position);
    }
    json
}

fn column_to_json(column: &ColumnShape) -> Json {
    let mut json = json!({ "name": column.name, "type": name_of(&column.kind) });
    match &column.kind {
        Kind::Enum(values) => json["values"] = json!(values),
        Kind::Vector(number, width) => (json["of"], json["length"]) = (json!(number.name()), json!(width)),
        Kind::Str(len_max) | Kind::Bytes(len_max) => json["length"] = json!(len_max),
        Kind::List(number, len_max) => (json["of"], json["length"]) = (json!(number.name()), json!(len_max)),
        Kind::Reference(table) => json["of"] = json!(table),
        Kind::Number(_) | Kind::Bool => {}
    }
    if let Some(step) = column.quantize {
        json["quantize"] = json!(step);
    }
    match column.audience {
        Audience::Owner => json["to"] = json!("owner"),
        Audience::Others => json["to"] = json!("others"),
        Audience::All | Audience::Nobody => {}
    }
    if column.every > 1 {
        json["every"] = json!(column.every);
    }
    if column.interpolate {
        json["interpolate"] = json!(true);
    }
    json
}

fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Number(number) => number.name(),
        Kind::Bool => "bool",
        Kind::Enum(_) => "enum",
        Kind::Vector(..) => "vector",
        Kind::Str(_) => "str",
        Kind::Bytes(_) => "bytes",
        Kind::Reference(_) => "entity",
        Kind::List(..) => "list",
    }
}

fn table_from_json(json: &Json) -> Result<TableShape, ShapeError> {
    let name = json["name"].as_str().ok_or_else(|| wrong("", "", "a table without a name"))?;
    let mut table = TableShape::global(name);
    if let Some(position) = json.get("position") {
        let names = position.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned);
        table.placement = Placement::Spatial(names.collect());
    }
    let columns = json["columns"].as_array().ok_or_else(|| wrong(name, "", "no list of columns"))?;
    for column in columns {
        let column = column.as_object().ok_or_else(|| wrong(name, "", "a column that is no object"))?;
        table.columns.push(column_from_json(name, column)?);
    }
    Ok(table)
}

fn column_from_json(table: &str, json: &Map<String, Json>) -> Result<ColumnShape, ShapeError> {
    let text = |key: &str| json.get(key).and_then(Json::as_str);
    let name = text("name").ok_or_else(|| wrong(table, "", "a column without a name"))?;
    let fault = |reason: &str| wrong(table, name, reason);
    let length = || {
        let length = json.get("length").and_then(Json::as_u64).and_then(|length| u16::try_from(length).ok());
        length.ok_or_else(|| fault("has no length"))
    };
    let number = |name: Option<&str>| {
        let found = Number::ALL.into_iter().find(|number| Some(number.name()) == name);
        found.ok_or_else(|| fault("of no known type"))
    };
    let kind = match text("type") {
        Some("bool") => Kind::Bool,
        Some("enum") => {
            let values = json.get("values").and_then(Json::as_array).into_iter().flatten();
            Kind::Enum(values.filter_map(|value| i32::try_from(value.as_i64()?).ok()).collect())
        }
        Some("vector") => Kind::Vector(
            number(text("of"))?,
            u8::try_from(length()?).map_err(|_| fault("too long a vector"))?,
        ),
        Some("str") => Kind::Str(length()?),
        Some("bytes") => Kind::Bytes(length()?),
        Some("list") => Kind::List(number(text("of"))?, length()?),
        Some("entity") => Kind::Reference(text("of").unwrap_or_default().to_owned()),
        other => Kind::Number(number(other)?),
    };
    Ok(ColumnShape {
        quantize: json.get("quantize").and_then(Json::as_f64),
        audience: match text("to") {
            Some("owner") => Audience::Owner,
            Some("others") => Audience::Others,
            _ => Audience::All,
        },
        every: json.get("every").and_then(Json::as_u64).map_or(1, |every| every.clamp(1, 1 << 16) as u32),
        interpolate: json.get("interpolate").and_then(Json::as_bool).unwrap_or(false),
        ..ColumnShape::new(name, kind)
    })
}

fn wrong(table: &str, column: &str, reason: &str) -> ShapeError {
    ShapeError { table: table.to_owned(), column: column.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_are_told_is_what_they_need() {
        let column = ColumnShape::new;
        let table = TableShape::spatial("Thing", &["at"])
            .column(column("at", Kind::Vector(Number::F32, 2)).quantize(0.5).to(Audience::Others))
            .column(column("note", Kind::Str(9)).every(3))
            .column(column("raw", Kind::Bytes(2)).to(Audience::Owner))
            .column(column("items", Kind::List(Number::U64, 3)))
            .column(column("mood", Kind::Enum(vec![-1, 5])))
            .column(column("next", Kind::Reference("Thing".into())))
            .column(column("is_on", Kind::Bool))
            .column(column("server", Kind::Number(Number::F64)).to(Audience::Nobody));
        let shape = WorldShape::new(vec![TableShape::global("None"), table]).unwrap();
        assert_eq!(WorldShape::from_json(&shape.to_json()).unwrap(), shape.for_clients());
    }

    #[test]
    fn what_is_no_shape_is_refused() {
        for text in [
            "",
            "{}",
            "[1]",
            r#"[{"name": "A"}]"#,
            r#"[{"name": "A", "columns": [1]}]"#,
            r#"[{"name": "A", "columns": [{"name": "x", "type": "f16"}]}]"#,
            r#"[{"name": "A", "columns": [{"name": "x", "type": "vector", "of": "f32", "length": 70000}]}]"#,
            r#"[{"name": "A", "columns": [{"name": "x", "type": "entity", "of": "B"}]}]"#,
        ] {
            assert!(WorldShape::from_json(text).is_err(), "{text}");
        }
    }
}
