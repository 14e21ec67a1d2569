"""The DICOM floor: DIMSE and DICOMweb doors to the exchange."""
