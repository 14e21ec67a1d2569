"""UIDs of the registry (PS3.6 Annex A) that more than one module names, and our own."""

from __future__ import annotations

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

IMPLEMENTATION_CLASS_UID = "2.25.254796998370389141030813754796746478165"
"""Names this implementation in associations (PS3.7 D.3.3.2) and in files (0002,0012); derived from
a UUID (PS3.5 B.2). Never changes: digests of kept files cover it."""

IMPLEMENTATION_VERSION_NAME = "IMAGING_EXCHANGE"
"""Implementation Version Name, for association negotiation (PS3.7 D.3.3.2); not in kept files."""
