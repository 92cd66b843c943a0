"""Generates each chart's `values.schema.json` and the table in its README from the comments of its `values.yaml`.

`python -m chartdocs` writes the files, with `--check` it names those that are stale. `values` reads the commented file,
`schema` and `readme` render it, `shapes` holds the schemas that several values share.
"""
