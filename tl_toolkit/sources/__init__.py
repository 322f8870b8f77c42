"""What lies where: images and their targets, listed from folders and tables, not opened."""
