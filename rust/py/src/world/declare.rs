//! Entity classes as `gameserver._columns` reads them, as shapes of the world.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use world::{Audience, ColumnShape, Kind, Number, Placement, TableShape, Value};

use crate::world::entity::name_of;
use crate::world::value::Column;

/// A column for the descriptors of a class; `source` is a `gameserver._columns.ColumnShape`.
pub fn column(source: &Bound<'_, PyAny>, index: usize) -> PyResult<Column> {
    let py = source.py();
    let kind = kind(source)?;
    let of: Option<Py<PyType>> = source.getattr(intern!(py, "of"))?.extract()?;
    let members = match (&kind, &of) {
        (Kind::Enum(_), Some(of)) => members(of.bind(py))?,
        _ => Vec::new(),
    };
    let quantize: Option<f64> = source.getattr(intern!(py, "quantize"))?.extract()?;
    Ok(Column {
        name: source.getattr(intern!(py, "name"))?.extract()?,
        index,
        row_bytes: kind.row_bytes(),
        kind,
        per_unit: quantize.map(|step| 1.0 / step),
        rate: source.getattr(intern!(py, "rate"))?.extract()?,
        members,
        of,
    })
}

/// A table; `source` is a `gameserver._entity.TableShape`. How many ticks a column's rate is, is known once it has a server.
pub fn table(source: &Bound<'_, PyAny>) -> PyResult<TableShape> {
    let py = source.py();
    let name: String = source.getattr(intern!(py, "name"))?.extract()?;
    let position: Vec<String> = source.getattr(intern!(py, "position"))?.extract()?;
    let mut table = TableShape::global(&name);
    if !position.is_empty() {
        table.placement = Placement::Spatial(position);
    }
    for column in source.getattr(intern!(py, "columns"))?.try_iter()? {
        table.columns.push(shape(&column?)?);
    }
    Ok(table)
}

/// In every how many ticks a column is sent that is sent `rate` times a second.
pub fn every(rate: Option<f64>, tick_rate: u32) -> u32 {
    rate.map_or(1, |rate| (f64::from(tick_rate) / rate).round().max(1.0) as u32)
}

fn shape(source: &Bound<'_, PyAny>) -> PyResult<ColumnShape> {
    let py = source.py();
    let kind = kind(source)?;
    let name: String = source.getattr(intern!(py, "name"))?.extract()?;
    let default = value(&kind, &source.getattr(intern!(py, "default"))?)?;
    let to: String = source.getattr(intern!(py, "to"))?.extract()?;
    Ok(ColumnShape {
        default,
        quantize: source.getattr(intern!(py, "quantize"))?.extract()?,
        audience: match to.as_str() {
            "owner" => Audience::Owner,
            "others" => Audience::Others,
            "nobody" => Audience::Nobody,
            _ => Audience::All,
        },
        interpolate: source.getattr(intern!(py, "interpolate"))?.extract()?,
        ..ColumnShape::new(&name, kind)
    })
}

fn kind(source: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let py = source.py();
    let kind: String = source.getattr(intern!(py, "kind"))?.extract()?;
    let length = || source.getattr(intern!(py, "length"))?.extract::<u16>();
    let item = || number(&source.getattr(intern!(py, "item"))?.extract::<String>()?);
    let of = || Ok::<_, PyErr>(source.getattr(intern!(py, "of"))?.cast_into::<PyType>()?);
    Ok(match kind.as_str() {
        "bool" => Kind::Bool,
        "enum" => Kind::Enum(members(&of()?)?.into_iter().map(|(number, _)| number).collect()),
        "vector" => Kind::Vector(item()?, u8::try_from(length()?)?),
        "str" => Kind::Str(length()?),
        "bytes" => Kind::Bytes(length()?),
        "list" => Kind::List(item()?, length()?),
        "entity" => Kind::Reference(of()?.getattr(intern!(py, "__name__"))?.extract()?),
        _ => Kind::Number(number(&kind)?),
    })
}

fn number(name: &str) -> PyResult<Number> {
    let found = Number::ALL.into_iter().find(|number| number.name() == name);
    found.ok_or_else(|| PyValueError::new_err(format!("{name} is no type of a column")))
}

/// The members of an enum's class, by their number.
fn members(of: &Bound<'_, PyType>) -> PyResult<Vec<(i32, Py<PyAny>)>> {
    let mut members = Vec::new();
    for member in of.try_iter()? {
        let member = member?;
        let number: i32 = member.getattr(intern!(of.py(), "value"))?.extract()?;
        members.push((number, member.unbind()));
    }
    Ok(members)
}

/// A default, which `gameserver._columns` has checked.
fn value(kind: &Kind, value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    let one = |number: Number, item: &Bound<'_, PyAny>| -> PyResult<Value> {
        Ok(match number {
            Number::F32 | Number::F64 => Value::Float(item.extract()?),
            _ => Value::Int(item.extract()?),
        })
    };
    Ok(Some(match kind {
        Kind::Number(number) => one(*number, value)?,
        Kind::Bool => Value::Bool(value.extract()?),
        Kind::Enum(_) => Value::Int(value.extract()?),
        Kind::Vector(..) => Value::Vector(value.extract()?),
        Kind::Str(_) => Value::Str(value.extract()?),
        Kind::Bytes(_) => Value::Bytes(value.extract()?),
        Kind::List(number, _) => {
            Value::List(value.try_iter()?.map(|item| one(*number, &item?)).collect::<PyResult<_>>()?)
        }
        Kind::Reference(_) => return Ok(None),
    }))
}

/// Where a class is: for errors.
pub fn where_of(class: &Bound<'_, PyType>) -> String {
    let module = class.getattr("__module__").and_then(|module| module.extract::<String>());
    format!("{}.{}", module.unwrap_or_default(), name_of(class))
}
