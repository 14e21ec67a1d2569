"""One of each floor put together, and its doors opened: settings, commands and processes."""
