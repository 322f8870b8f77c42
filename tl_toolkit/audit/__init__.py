"""What is wrong with a set of images: files, copies, labels, classes."""
