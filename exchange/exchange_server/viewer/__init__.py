"""The viewer: OHIF, prepared and served by the exchange, and how other systems launch it."""
