//! Schemas remember what they were: a change must be compatible and raise the version, or have a new name.

use bytes::Bytes;
use millpond_core::{
    problem::SpecProblem,
    record,
    schema::{SchemaSpec, compatible},
};
use millpond_store::{Put, ReadError, Reader, Table};

const PREFIX: &str = "schema/";

/// What is to be written so that the store knows the schemas as they are now; the problems when a change is not allowed.
pub fn changes(reader: &Reader, schemas: &[SchemaSpec]) -> Result<Result<Vec<Put>, Vec<SpecProblem>>, ReadError> {
    let (mut puts, mut problems) = (Vec::new(), Vec::new());
    for (at, schema) in schemas.iter().enumerate() {
        let key = format!("{PREFIX}{}", schema.name).into_bytes();
        let stored = reader.get(Table::Meta, &key)?;
        if let Some(before) = stored.and_then(|bytes| record::decode::<SchemaSpec>(&bytes).ok()) {
            if before == *schema {
                continue;
            }
            let found = compatible(&before, schema).into_iter();
            problems.extend(
                found.map(|problem| SpecProblem { place: format!("schemas[{at}].{}", problem.place), ..problem }),
            );
        }
        puts.push(Put { table: Table::Meta, key, value: Some(Bytes::from(record::encode(schema))) });
    }
    Ok(if problems.is_empty() { Ok(puts) } else { Err(problems) })
}
