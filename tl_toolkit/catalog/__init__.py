"""The catalog of architectures, as plain data: blocks, units, maps, weight files."""
