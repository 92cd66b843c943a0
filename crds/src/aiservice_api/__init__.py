"""The `aiservice.dev` API: Pydantic models of the custom resources, the source of the generated CRDs."""
