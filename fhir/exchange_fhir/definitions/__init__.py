"""What the R4 standard defines, as data: made by the scripts in deploy/, read once."""
