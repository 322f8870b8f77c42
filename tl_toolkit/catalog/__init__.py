"""What is known of every architecture, as plain data: blocks, units, maps, weight files."""
