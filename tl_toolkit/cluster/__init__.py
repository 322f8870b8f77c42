"""Tasks on a Ray cluster: connecting, resources, results as they come, retries."""
