"""Generates what follows from the API models: the CRDs and the API reference.

`python -m aiservice_api.generate` writes the files, with `--check` it names those that are stale.
The API server takes a small dialect of OpenAPI 3 (a structural schema): `structural` turns Pydantic's JSON schema into
it, `definition` puts the CRD around it, `reference` renders the same schema for people, `outputs` says what goes where.
"""
