"""One module per revision, the newest is `db.schema.HEAD`."""
