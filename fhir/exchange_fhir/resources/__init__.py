"""The FHIR resources of the exchange: one module each, with `to_fhir` and its `SEARCH` table."""
