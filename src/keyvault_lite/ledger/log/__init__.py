"""The log: queries over its entries, its boundary and its tiles."""
