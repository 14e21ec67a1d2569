"""The exchange floor: decides who may do what, and does it; speaks no protocol."""
