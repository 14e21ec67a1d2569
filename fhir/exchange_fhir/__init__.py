"""The FHIR floor: speaks FHIR R4 (4.0.1) and nothing else."""
